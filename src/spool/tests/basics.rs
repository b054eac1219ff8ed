//! Storing, reading back, deduplicating, requeueing.

use super::*;

#[tokio::test]
async fn everything_is_there_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let before = {
        let spool = open(dir.path());
        spool.append(request(1, 0, 100)).await.unwrap();
        let retried = pend(&spool, request(1, 1, 10_000)).await;
        for i in 0..25 {
            let due_at = NOW + i + 60;
            let next = Next::Retry { due_at };
            spool.record_attempt(retried, attempt(NOW + i), next).await.unwrap();
        }
        let key = pend(&spool, request(1, 2, 0)).await;
        deliver(&spool, key, NOW + 9).await;
        let key = pend(&spool, request(1, 3, 300_000)).await;
        kill(&spool, key, NOW + 9).await;
        (0..4).map(|n| spool.entry(id(1, n)).unwrap().unwrap()).collect::<Vec<_>>()
    };
    let spool = open(dir.path());
    let after: Vec<_> = (0..4).map(|n| spool.entry(id(1, n)).unwrap().unwrap()).collect();
    // How long it took is known again as soon as the request is matched.
    assert!(before[0].answered_after.is_some() && after[0].answered_after.is_none());
    assert_eq!(Entry { answered_after: None, ..before[0].clone() }, after[0]);
    assert_eq!(before[1..], after[1..]);
    assert!(after[1..].iter().all(|entry| entry.answered_after.is_some()));
    assert_eq!(after[0].request, request(1, 0, 100));
    assert_eq!(after[3].request, request(1, 3, 300_000));
    assert_eq!(after[1].matched, Some(matched(1, 1)));

    let retried = &after[1].deliveries[0];
    assert_eq!(retried.attempts.len(), ATTEMPTS_KEPT);
    assert_eq!(retried.attempts[19], attempt(NOW + 24));
    let due_at = NOW + 84;
    let attempts = 25;
    assert_eq!(retried.state, DeliveryState::Pending { attempts, due_at });
    let reason = "12 attempts failed".to_owned();
    let (attempts, at) = (1, NOW + 9);
    let dead = DeliveryState::Dead { attempts, at, reason };
    assert_eq!(after[3].deliveries[0].state, dead);

    let pending = spool.pending();
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0].key, retried.key);
    assert_eq!((pending[0].attempts, pending[0].due_at), (25, NOW + 84));
    // Only what is not matched is handed out again, once.
    assert_eq!(*next(&spool).await.unwrap(), request(1, 0, 100));
    assert!(next(&spool).await.is_none());
    let u = spool.usage();
    assert_eq!((u.unmatched, u.pending, u.dead, u.finished), (1, 1, 1, 1));
    assert_eq!((u.damaged, u.torn), (0, 0));

    let event = spool.event(&retried.key).unwrap().unwrap();
    assert_eq!(event.request, request(1, 1, 10_000));
    assert_eq!(event.event.variables["n"], 1);
    assert_eq!(event.trigger.trigger, "trigger-0");
    assert_eq!(event.delivery, *retried);
}

#[tokio::test]
async fn requests_have_numbers_in_the_order_of_receipt_also_after_a_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let sub = Uuid::from_u128(1);
    {
        let spool = open(dir.path());
        // The clock says otherwise, and so do the ids.
        for n in [5, 2] {
            spool.append(request(1, n, 10)).await.unwrap();
        }
        assert!(!spool.unmatched_before(sub, 1) && spool.unmatched_before(sub, 2));
    }
    let spool = open(dir.path());
    spool.append(request(1, 1, 10)).await.unwrap();
    let pending = async |n: u64| spool.store_match(id(1, n), matched(n, 1)).await.unwrap()[0].clone();
    let last = pending(1).await;
    assert!(spool.unmatched_before(sub, last.number));
    let first = pending(5).await;
    assert!(!spool.unmatched_before(sub, first.number), "nothing is before the first");
    assert!(spool.unmatched_before(sub, last.number), "the second has no match yet");
    let second = pending(2).await;
    assert!(!spool.unmatched_before(sub, last.number));
    assert_eq!([first.number, second.number, last.number], [1, 2, 3]);
}

#[tokio::test]
async fn what_is_captured_is_kept_and_delivered_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.append(request(1, 0, 10)).await.unwrap();
    let mut match_ = matched(0, 2);
    match_.events[0].triggers[0].captured = true;
    let pending = spool.store_match(id(1, 0), match_.clone()).await.unwrap();
    assert_eq!(pending.iter().map(|p| p.key.trigger.as_u128()).collect::<Vec<_>>(), [1]);
    drop(spool);
    let spool = open(dir.path());
    assert_eq!(spool.pending().len(), 1);
    assert_eq!(spool.entry(id(1, 0)).unwrap().unwrap().matched, Some(match_));
}

#[tokio::test]
async fn the_same_request_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    // In one commit, in the next, and after a restart.
    let (a, b) = tokio::join!(spool.append(request(1, 1, 10)), spool.append(request(1, 1, 10)));
    assert_eq!(a.unwrap(), Appended::Stored);
    assert_eq!(b.unwrap(), Appended::Duplicate);
    let again = spool.append(request(1, 1, 10)).await.unwrap();
    assert_eq!(again, Appended::Duplicate);
    drop(spool);
    let spool = open(dir.path());
    let again = spool.append(request(1, 1, 10)).await.unwrap();
    assert_eq!(again, Appended::Duplicate);
    assert_eq!(spool.usage().unmatched, 1);
    assert!(next(&spool).await.is_some());
    assert!(next(&spool).await.is_none());
}

#[tokio::test]
async fn a_redelivery_requeues_what_is_dead_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.append(request(1, 1, 10)).await.unwrap();
    let keys = spool.store_match(id(1, 1), matched(1, 2)).await.unwrap();
    deliver(&spool, keys[0].key, NOW + 1).await;
    kill(&spool, keys[1].key, NOW + 2).await;
    assert_eq!(spool.usage().dead, 1);

    let mut again = request(1, 1, 10);
    again.received_at = NOW + HOUR;
    let done = spool.append(again.clone()).await.unwrap();
    assert_eq!(done, Appended::Requeued);
    let due = spool.requeued().await;
    assert_eq!(due.key, keys[1].key);
    assert_eq!((due.attempts, due.due_at), (0, NOW + HOUR));
    assert_eq!(spool.append(again).await.unwrap(), Appended::Duplicate);
    drop(spool);
    let spool = open(dir.path());
    assert_eq!(spool.pending(), [due]);
    // Its age counts from the requeue.
    spool.sweep(NOW + 3 * HOUR + 10).await.unwrap();
    assert_eq!(spool.pending().len(), 1);
    let entry = spool.entry(id(1, 1)).unwrap().unwrap();
    assert_eq!(entry.deliveries[1].attempts, [attempt(NOW + 2)]);
    assert!(!spool.requeue(id(1, 1), NOW).await.unwrap());
    kill(&spool, keys[1].key, NOW + 2).await;
    assert!(spool.requeue(id(1, 1), NOW + 3).await.unwrap());
    assert_eq!(spool.requeued().await.key, keys[1].key);
}

#[tokio::test]
async fn the_first_match_is_history() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let key = pend(&spool, request(1, 1, 10)).await;
    let second = spool.store_match(id(1, 1), matched(9, 3)).await.unwrap();
    assert_eq!(second.len(), 1);
    assert_eq!(second[0].key, key);
    let stored = spool.entry(id(1, 1)).unwrap().unwrap().matched;
    assert_eq!(stored, Some(matched(1, 1)));

    let unknown = spool.store_match(id(1, 2), matched(2, 1)).await;
    assert!(matches!(unknown, Err(SpoolError::Unknown { .. })));
    let key = DeliveryKey { item: 7, ..key };
    let unknown = spool.record_attempt(key, attempt(NOW), Next::Delivered).await;
    assert!(matches!(unknown, Err(SpoolError::Unknown { .. })));
}

#[tokio::test]
async fn a_late_attempt_does_not_undo_what_is_decided() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let state = || {
        let entry = spool.entry(id(1, 1)).unwrap().unwrap();
        entry.deliveries[0].state.clone()
    };
    let key = pend(&spool, request(1, 1, 10)).await;
    kill(&spool, key, NOW + 1).await;
    let next = Next::Retry { due_at: NOW };
    spool.record_attempt(key, attempt(NOW), next).await.unwrap();
    assert!(matches!(state(), DeliveryState::Dead { .. }));
    deliver(&spool, key, NOW + 3).await;
    assert!(matches!(state(), DeliveryState::Delivered { .. }));
    kill(&spool, key, NOW + 4).await;
    assert!(matches!(state(), DeliveryState::Delivered { .. }));
}

#[tokio::test]
async fn the_request_log_is_read_in_pages() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for n in 0..5 {
        let key = pend(&spool, request(1, n, 10)).await;
        deliver(&spool, key, NOW + n).await;
    }
    pend(&spool, request(2, 9, 10)).await;
    let mine = Uuid::from_u128(1);
    let page = spool.recent(mine, None, 2);
    let ids: Vec<_> = page.iter().map(|s| s.id).collect();
    assert_eq!(ids, [id(1, 4), id(1, 3)]);
    assert_eq!((page[0].status, page[0].delivered), (Status::Finished, 1));
    let page = spool.recent(mine, Some((page[1].received_at, page[1].id)), 9);
    let ids: Vec<_> = page.iter().map(|s| s.id).collect();
    assert_eq!(ids, [id(1, 2), id(1, 1), id(1, 0)]);
    assert!(spool.recent(Uuid::from_u128(3), None, 9).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_share_commits() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), Limits::default()).unwrap();
    let tasks = (0..32u128).map(|s| {
        let spool = spool.clone();
        tokio::spawn(async move {
            for n in 0..20 {
                spool.append(request(s, n, 1000)).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let u = spool.usage();
    assert_eq!((u.unmatched, u.records), (640, 640));
    assert!(u.commits < 320, "{} commits", u.commits);
}

#[tokio::test]
async fn a_second_open_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let second = Spool::open(dir.path(), small()).err().unwrap();
    assert!(matches!(second, OpenError::Locked { .. }));
    assert!(second.to_string().contains("in use by another process"));
    drop(spool);
    open(dir.path());
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).append(request(1, 1, 10)).await.unwrap();
    let path = &segments(dir.path())[0];
    let mut content = fs::read(path).unwrap();
    content[8] = 2;
    fs::write(path, &content).unwrap();
    let e = Spool::open(dir.path(), small()).err().unwrap();
    assert!(matches!(e, OpenError::Newer { found: 2, .. }));
    assert!(e.to_string().contains("newer version of Bellhop"), "{e}");
    assert_eq!(fs::read(path).unwrap(), content);
}

#[test]
fn limits_that_cannot_work_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_bytes: 1000, ..small() };
    let e = Spool::open(dir.path(), limits).err().unwrap();
    assert!(e.to_string().contains("at least 2097152 bytes"), "{e}");
}
