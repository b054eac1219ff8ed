//! Replays, and what the log of each subscription may hold.

use super::*;

fn line(key: DeliveryKey) -> ReplayLine {
    ReplayLine { item: key.item, trigger: key.trigger, added: None }
}

/// A trigger that the request was not held against.
fn later(request: Uuid) -> (ReplayLine, DeliveryKey) {
    let trigger = Uuid::from_u128(77);
    let outcome = TriggerOutcome {
        trigger: "later".into(),
        uid: trigger,
        workflow: "deploy".into(),
        mismatch: None,
        captured: false,
    };
    (ReplayLine { item: 0, trigger, added: Some(outcome) }, DeliveryKey { request, item: 0, trigger })
}

/// Checks a spool, and again after a restart, after a move and after another restart.
async fn stays(dir: &Path, spool: Spool, check: impl Fn(&Spool)) {
    check(&spool);
    drop(spool);
    let spool = open(dir);
    check(&spool);
    // So much comes after it that its segment is emptied.
    for n in 0..400 {
        let other = pend(&spool, request(2, 100 + n, 20_000)).await;
        deliver(&spool, other, NOW + 100 + n).await;
    }
    assert!(spool.usage().evicted > 0);
    check(&spool);
    drop(spool);
    check(&open(dir));
}

#[tokio::test]
async fn a_replay_outlives_a_restart_and_a_move() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let key = pend(&spool, request(1, 1, 100)).await;
    deliver(&spool, key, NOW + 5).await;
    let (added, added_key) = later(key.request);
    let lines = vec![line(key), added.clone()];
    let done = spool.replay(key.request, lines.clone(), Some(&"j".repeat(1000)), NOW + 9).await.unwrap();
    assert_eq!(done, [key, added_key]);
    assert_eq!([spool.requeued().await.key, spool.requeued().await.key], [key, added_key]);
    // Both are pending now, so there is nothing more to do.
    assert!(spool.replay(key.request, lines, None, NOW + 10).await.unwrap().is_empty());
    deliver(&spool, added_key, NOW + 12).await;

    let check = |spool: &Spool| {
        let entry = spool.entry(key.request).unwrap().unwrap();
        assert_eq!(entry.matched, Some(matched(1, 1)), "the match is history");
        let [first, second] = entry.deliveries.as_slice() else { panic!("{:?}", entry.deliveries) };
        assert_eq!(first.state, DeliveryState::Pending { attempts: 0, due_at: NOW + 9 });
        assert_eq!(first.attempts.len(), 1, "earlier attempts stay");
        assert_eq!((second.key, second.attempts.len()), (added_key, 1));
        assert!(matches!(second.state, DeliveryState::Delivered { .. }));
        for delivery in [first, second] {
            let replayed = delivery.replayed.as_ref().unwrap();
            assert_eq!((replayed.at, replayed.by.as_ref().unwrap().len()), (NOW + 9, 256));
        }
        assert_eq!((&first.added, second.added.as_ref()), (&None, added.added.as_ref()));
        assert_eq!(spool.event(&added_key).unwrap().unwrap().trigger.workflow, "deploy");
        assert_eq!(spool.pending().iter().map(|p| p.key).collect::<Vec<_>>(), [key]);
    };
    stays(dir.path(), spool, check).await;
}

#[tokio::test]
async fn what_cannot_be_replayed_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let unknown = spool.replay(Uuid::nil(), Vec::new(), None, NOW).await;
    assert!(matches!(unknown, Err(SpoolError::Unknown { .. })));
}

#[tokio::test]
async fn replays_leave_the_room_to_others_that_they_need() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_bytes_per_subscription: 256 << 10, ..small() };
    let spool = Spool::open(dir.path(), limits.clone()).unwrap();
    let mut keys = Vec::new();
    for n in 0..40 {
        let key = pend(&spool, request(1, n, 20_000)).await;
        deliver(&spool, key, NOW + n).await;
        keys.push(key);
    }
    let kept: Vec<DeliveryKey> = keys.into_iter().filter(|key| spool.entry(key.request).unwrap().is_some()).collect();
    assert!(kept.len() > 20, "{}", kept.len());
    // All at once, so that those that are on their way in count too.
    let replays = kept.iter().map(|key| spool.replay(key.request, vec![line(*key)], None, NOW + 100));
    let mut refused = Vec::new();
    for (key, replayed) in kept.iter().zip(futures::future::join_all(replays).await) {
        match replayed {
            Ok(keys) => assert_eq!(keys, [*key]),
            Err(SpoolError::NoRoom(full)) => refused.push((*key, full.to_string())),
            Err(other) => panic!("{other}"),
        }
    }
    let usage = spool.subscription_usage(Uuid::from_u128(1));
    assert!(usage.undelivered_bytes <= limits.max_bytes_per_subscription, "{usage:?}");
    assert!(usage.undelivered_bytes > limits.max_bytes_per_subscription / 2, "{usage:?}");
    let (key, why) = refused.first().expect("some do not fit");
    assert!(why.contains("Subscription team-a/sub-1 has"), "{why}");
    let before = spool.entry(key.request).unwrap().unwrap();
    assert!(matches!(before.deliveries[0].state, DeliveryState::Delivered { .. }), "nothing has changed");
    // Others have their room, and this one has it again when something is delivered.
    pend(&spool, request(2, 1, 100_000)).await;
    for _ in 0..3 {
        let again = spool.requeued().await;
        deliver(&spool, again.key, NOW + 200).await;
    }
    assert_eq!(spool.replay(key.request, vec![line(*key)], None, NOW + 300).await.unwrap(), [*key]);
    // A dead letter counts already.
    let dead = pend(&spool, request(3, 1, 100)).await;
    kill(&spool, dead, NOW + 5).await;
    assert_eq!(spool.replay(dead.request, vec![line(dead)], None, NOW + 300).await.unwrap(), [dead]);
}

#[tokio::test]
async fn a_captured_event_is_not_delivered_unless_somebody_wishes_it() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.append(request(1, 1, 10)).await.unwrap();
    let mut matched = matched(1, 1);
    matched.events[0].triggers[0].captured = true;
    assert!(spool.store_match(id(1, 1), matched).await.unwrap().is_empty());
    let key = DeliveryKey { request: id(1, 1), item: 0, trigger: Uuid::from_u128(0) };
    assert_eq!(spool.replay(id(1, 1), vec![line(key)], None, NOW + 9).await.unwrap(), [key]);
    assert_eq!(spool.event(&key).unwrap().unwrap().trigger.trigger, "trigger-0");
}

#[tokio::test]
async fn finished_requests_of_a_subscription_are_bounded_and_others_stay() {
    let limits = Limits { max_finished_per_subscription: 5, ..small() };
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), limits.clone()).unwrap();
    let waiting = pend(&spool, request(1, 1, 10)).await;
    let dead = pend(&spool, request(1, 2, 10)).await;
    kill(&spool, dead, NOW + 2).await;
    let calm = pend(&spool, request(2, 3, 10)).await;
    deliver(&spool, calm, NOW + 3).await;
    for n in 10..30 {
        let key = pend(&spool, request(1, n, 10)).await;
        deliver(&spool, key, NOW + n).await;
    }
    let check = |spool: &Spool| {
        let usage = spool.subscription_usage(Uuid::from_u128(1));
        assert_eq!((usage.finished, usage.pending, usage.dead), (5, 1, 1));
        let ids: Vec<Uuid> = spool.recent(Uuid::from_u128(1), None, 100).iter().map(|s| s.id).collect();
        let newest = (25..30).rev().map(|n| id(1, n));
        assert_eq!(ids, newest.chain([dead.request, waiting.request]).collect::<Vec<_>>());
        assert!(spool.entry(calm.request).unwrap().is_some());
    };
    check(&spool);
    assert_eq!(spool.usage().evicted, 15);
    drop(spool);
    check(&Spool::open(dir.path(), limits).unwrap());
}

#[tokio::test]
async fn finished_requests_of_a_subscription_are_bounded_in_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_finished_bytes_per_subscription: 100_000, ..small() };
    let spool = Spool::open(dir.path(), limits).unwrap();
    for n in 0..20 {
        let key = pend(&spool, request(1, n, 20_000)).await;
        deliver(&spool, key, NOW + n).await;
    }
    assert_eq!(spool.subscription_usage(Uuid::from_u128(1)).finished, 4);
    // One that is larger than all may be stays until there is a newer one.
    let key = pend(&spool, request(1, 50, 200_000)).await;
    deliver(&spool, key, NOW + 50).await;
    assert_eq!(spool.subscription_usage(Uuid::from_u128(1)).finished, 1);
    assert!(spool.entry(key.request).unwrap().is_some());
}

#[tokio::test]
async fn a_namespace_has_its_subscriptions_as_long_as_there_are_requests() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for subscription in [1, 2] {
        let key = pend(&spool, request(subscription, 1, 10)).await;
        deliver(&spool, key, NOW + 1).await;
    }
    let other = Request { namespace: "team-b".into(), ..request(3, 1, 10) };
    pend(&spool, other).await;
    let names = |spool: &Spool, namespace: &str| {
        let mut names: Vec<String> = spool.subscriptions(Some(namespace)).into_iter().map(|(_, name)| name).collect();
        names.sort();
        names
    };
    assert_eq!(
        (names(&spool, "team-a"), names(&spool, "team-b")),
        (vec!["sub-1".into(), "sub-2".into()], vec!["sub-3".into()])
    );
    assert_eq!(spool.subscriptions(None).len(), 3);
    drop(spool);
    let spool = open(dir.path());
    assert_eq!(names(&spool, "team-a"), ["sub-1", "sub-2"]);
    let both = spool.recent_of(&[Uuid::from_u128(1), Uuid::from_u128(2)], None, 10);
    assert_eq!(both.len(), 2);
    spool.sweep(NOW + 11 * HOUR).await.unwrap();
    assert!(names(&spool, "team-a").is_empty());
}

#[tokio::test]
async fn how_a_request_was_answered_outlives_a_restart_and_a_move() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let key = pend(&spool, request(1, 1, 100)).await;
    let answered = Answered {
        status: 200,
        after: 1234,
        reason: "Answered".into(),
        trigger: Some("deploy".into()),
        note: Some("of no use".into()),
    };
    spool.note_answer(key.request, answered.clone(), NOW + 3);
    // Of a request that is not there, nothing is kept.
    spool.note_answer(Uuid::nil(), answered.clone(), NOW + 3);
    spool.sweep(NOW + 4).await.unwrap();
    let check = |spool: &Spool| {
        let entry = spool.entry(key.request).unwrap().unwrap();
        assert_eq!(entry.answered.as_deref(), Some(&answered));
        assert_eq!((entry.touched, entry.deliveries.len()), (NOW + 3, 1));
        assert!(entry.answered_after.is_some());
    };
    stays(dir.path(), spool, check).await;
}
