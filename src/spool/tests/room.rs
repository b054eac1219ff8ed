//! Limits, eviction, moving, sweeping.

use super::*;

#[tokio::test]
async fn a_full_subscription_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let mut stored = 0;
    let e = loop {
        match spool.append(request(1, stored, 10_000)).await {
            Ok(_) => stored += 1,
            Err(e) => break e,
        }
    };
    assert!(matches!(e, AppendError::SubscriptionFull { .. }), "{e}");
    assert!(e.to_string().contains("team-a/sub-1"), "{e}");
    // Its limit is 1 MiB, and so is half of the 2 MiB for what is undelivered.
    assert!((95..=105).contains(&stored), "{stored}");
    pend(&spool, request(2, 0, 10_000)).await;
    // A redelivery of what is there is still recognised.
    let again = spool.append(request(1, 0, 10_000)).await.unwrap();
    assert_eq!(again, Appended::Duplicate);
    // Delivering one makes room for one.
    let keys = spool.store_match(id(1, 0), matched(0, 1)).await.unwrap();
    deliver(&spool, keys[0].key, NOW).await;
    assert!(spool.append(request(1, 900, 9_000)).await.is_ok());
    assert!(spool.append(request(1, 901, 9_000)).await.is_err());
    drop(spool);
    let spool = open(dir.path());
    assert!(spool.append(request(1, 901, 9_000)).await.is_err());
    assert!(spool.append(request(2, 901, 9_000)).await.is_ok());
}

#[tokio::test]
async fn many_floods_leave_room_for_one_more() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for s in 1..=5 {
        let mut n = 0;
        while spool.append(request(s, n, 10_000)).await.is_ok() {
            n += 1;
        }
    }
    let u = spool.usage();
    assert!(u.held_bytes > u.held_limit * 9 / 10, "{u:?}");
    assert!(u.held_bytes <= u.held_limit);
    let e = spool.append(request(9, 0, 100_000)).await.err().unwrap();
    assert!(matches!(e, AppendError::Full { .. }), "{e}");
    let e = spool.append(request(9, 0, 2_000_000)).await.err().unwrap();
    assert!(matches!(e, AppendError::TooLarge { .. }), "{e}");
    // Each flood may hold as much as is free, so each got half of what the ones before had left, and
    // somebody new still finds room.
    for n in 0..3 {
        assert!(spool.append(request(9, n, 5_000)).await.is_ok());
    }
}

#[tokio::test]
async fn what_is_delivered_makes_room_oldest_first_and_what_waits_moves() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    // Something of every kind waits at the beginning of the log.
    spool.append(request(7, 0, 3000)).await.unwrap();
    let retried = pend(&spool, request(7, 1, 3000)).await;
    let next = Next::Retry { due_at: NOW + 5 };
    spool.record_attempt(retried, attempt(NOW), next).await.unwrap();
    let dead = pend(&spool, request(7, 2, 3000)).await;
    kill(&spool, dead, NOW).await;
    spool.append(request(7, 3, 3000)).await.unwrap();
    let both = spool.store_match(id(7, 3), matched(3, 2)).await.unwrap();
    deliver(&spool, both[0].key, NOW).await;
    let read = |spool: &Spool| {
        let entry = |n| spool.entry(id(7, n)).unwrap().unwrap();
        (0..4).map(entry).collect::<Vec<_>>()
    };
    let before = read(&spool);

    // Four times as much as the spool may take goes through it.
    let count = 4 * 4 * MIB / 10_000;
    for n in 0..count {
        let key = pend(&spool, request(1, n, 10_000)).await;
        deliver(&spool, key, NOW + n).await;
        assert!(spool.usage().disk_bytes <= 4 * MIB);
    }
    assert_eq!(read(&spool), before);
    let there: Vec<u64> = (0..count).filter(|&n| spool.entry(id(1, n)).unwrap().is_some()).collect();
    assert!(there.len() as u64 * 10_000 > 2 * MIB, "{}", there.len());
    let expected: Vec<u64> = (count - there.len() as u64..count).collect();
    assert_eq!(there, expected);
    assert!(spool.usage().evicted > 0);
    let on_disk: u64 = segments(dir.path()).iter().map(|p| fs::metadata(p).unwrap().len()).sum();
    assert!(on_disk <= 4 * MIB, "{on_disk}");

    drop(spool);
    let spool = open(dir.path());
    assert_eq!(read(&spool), before);
    assert_eq!(spool.usage().pending, 2);
    assert_eq!(spool.usage().dead, 1);
    assert_eq!((spool.usage().torn, spool.usage().damaged), (0, 0));
    let next = spool.next_unmatched().await;
    assert_eq!(*next, request(7, 0, 3000));
    // What was moved can still be finished.
    deliver(&spool, retried, NOW + 9).await;
    let entry = spool.entry(id(7, 1)).unwrap().unwrap();
    assert_eq!(entry.deliveries[0].attempts, [attempt(NOW), attempt(NOW + 9)]);
    // What was evicted is new again.
    let again = spool.append(request(1, 0, 10)).await.unwrap();
    assert_eq!(again, Appended::Stored);
}

#[tokio::test]
async fn a_spool_that_is_as_full_as_it_may_be_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for s in 1..=4 {
        let mut n = 0;
        while spool.append(request(s, n, 5_000)).await.is_ok() {
            n += 1;
        }
    }
    let waiting = spool.usage().unmatched;
    for n in 0..1200 {
        let key = pend(&spool, request(9, n, 5_000)).await;
        deliver(&spool, key, NOW + n).await;
        assert!(spool.usage().disk_bytes <= 4 * MIB);
    }
    assert_eq!(spool.usage().unmatched, waiting);
    drop(spool);
    let spool = open(dir.path());
    assert_eq!(spool.usage().unmatched, waiting);
    for _ in 0..waiting {
        assert_eq!(next(&spool).await.unwrap().body.len(), 5_000);
    }
}

#[tokio::test]
async fn dead_letters_fill_half_of_a_share_at_most() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for n in 0..100 {
        let key = pend(&spool, request(1, n, 10_000)).await;
        kill(&spool, key, NOW + n).await;
    }
    let dead = |spool: &Spool| {
        let all = spool.recent(Uuid::from_u128(1), None, 1000);
        all.iter().map(|s| s.id).collect::<Vec<_>>()
    };
    let kept = dead(&spool);
    assert!((40..=52).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept[0], id(1, 99));
    assert_eq!(spool.usage().dead_dropped, 100 - kept.len() as u64);
    let u = spool.subscription_usage(Uuid::from_u128(1));
    assert!(u.dead_bytes <= MIB / 2);
    drop(spool);
    assert_eq!(dead(&open(dir.path())), kept);
}

#[tokio::test]
async fn dead_letters_of_many_leave_room_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for s in 1..=10 {
        for n in 0..40 {
            let key = pend(&spool, request(s, n, 10_000)).await;
            kill(&spool, key, NOW + n).await;
        }
    }
    let u = spool.usage();
    assert!(u.held_bytes <= u.held_limit / 2, "{u:?}");
    for s in 1..=10 {
        assert!(spool.subscription_usage(Uuid::from_u128(s)).dead > 0);
    }
}

#[tokio::test]
async fn a_sweep_ends_what_is_too_old_and_forgets_what_ended_long_ago() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    spool.append(request(1, 0, 10)).await.unwrap();
    let delivered = pend(&spool, request(1, 1, 10)).await;
    deliver(&spool, delivered, NOW + HOUR).await;
    pend(&spool, request(1, 2, 10)).await;
    pend(&spool, request(1, 2 * HOUR, 10)).await;

    spool.sweep(NOW + 2 * HOUR).await.unwrap();
    let u = spool.usage();
    assert_eq!((u.unmatched, u.pending, u.dead, u.finished), (1, 2, 0, 1));
    spool.sweep(NOW + 4 * HOUR).await.unwrap();
    let u = spool.usage();
    assert_eq!((u.unmatched, u.pending, u.dead, u.finished), (0, 1, 2, 1));
    let entry = spool.entry(id(1, 0)).unwrap().unwrap();
    assert_eq!(entry.dead.as_deref(), Some("not delivered within 3 hours"));
    assert!(next(&spool).await.is_none());

    drop(spool);
    let spool = open(dir.path());
    assert_eq!(spool.usage().dead, 2);
    // A redelivery of what was never matched goes to the matcher again.
    let mut again = request(1, 0, 10);
    again.received_at = NOW + 4 * HOUR;
    assert_eq!(spool.append(again).await.unwrap(), Appended::Requeued);
    assert_eq!(next(&spool).await.unwrap().id, id(1, 0));

    // Retention counts from the last thing that happened.
    spool.sweep(NOW + 12 * HOUR).await.unwrap();
    assert!(spool.entry(id(1, 1)).unwrap().is_none());
    assert!(spool.entry(id(1, 2)).unwrap().is_some());
    spool.sweep(NOW + 30 * HOUR).await.unwrap();
    let u = spool.usage();
    assert_eq!((u.unmatched, u.pending, u.dead, u.finished), (0, 0, 0, 0));
    assert_eq!(u.held_bytes, 0);
    assert!(spool.recent(Uuid::from_u128(1), None, 10).is_empty());
}

#[tokio::test]
async fn a_sweep_gives_disk_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for n in 0..250 {
        let key = pend(&spool, request(1, n, 10_000)).await;
        deliver(&spool, key, NOW).await;
    }
    let size = |dir: &Path| -> u64 {
        let all = segments(dir);
        all.iter().map(|p| fs::metadata(p).unwrap().len()).sum()
    };
    assert!(size(dir.path()) > 2 * MIB);
    spool.sweep(NOW + 11 * HOUR).await.unwrap();
    assert!(size(dir.path()) <= MIB, "{}", size(dir.path()));
    assert!(spool.usage().disk_bytes <= MIB / 4);
    // What was forgotten is not dedupe material any more, and stays forgotten.
    drop(spool);
    let spool = open(dir.path());
    spool.sweep(NOW + 11 * HOUR).await.unwrap();
    assert_eq!(spool.usage().finished, 0);
    let again = spool.append(request(1, 0, 10)).await.unwrap();
    assert_eq!(again, Appended::Stored);
}
