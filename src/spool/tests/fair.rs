//! Handing requests to the matcher.

use super::*;

/// The subscriptions of the next requests.
async fn turns(spool: &Spool, n: usize) -> Vec<u128> {
    let mut turns = Vec::new();
    for _ in 0..n {
        turns.push(next(spool).await.unwrap().subscription.as_u128());
    }
    turns
}

#[tokio::test]
async fn subscriptions_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for n in 0..50 {
        spool.append(request(1, n, 10)).await.unwrap();
    }
    for n in 50..53 {
        spool.append(request(2, n, 10)).await.unwrap();
    }
    spool.append(request(3, 53, 10)).await.unwrap();
    assert_eq!(turns(&spool, 9).await, [1, 2, 3, 1, 2, 1, 2, 1, 1]);
    drop(spool);
    // The same after a restart, and each subscription's own are in order.
    let spool = open(dir.path());
    assert_eq!(turns(&spool, 6).await, [1, 2, 3, 1, 2, 1]);
    assert_eq!(next(&spool).await.unwrap().id, id(2, 52));
    assert_eq!(next(&spool).await.unwrap().id, id(1, 3));
}

#[tokio::test]
async fn namespaces_take_turns_however_many_subscriptions_each_has() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    for n in 0..30 {
        spool.append(request(1 + u128::from(n % 3), n, 10)).await.unwrap();
    }
    for n in 30..33 {
        spool.append(Request { namespace: "team-b".into(), ..request(9, n, 10) }).await.unwrap();
    }
    assert_eq!(turns(&spool, 8).await, [1, 9, 2, 9, 3, 9, 1, 2]);
    // Whoever comes back comes behind those who wait.
    spool.append(Request { namespace: "team-b".into(), ..request(9, 33, 10) }).await.unwrap();
    assert_eq!(turns(&spool, 3).await, [3, 9, 1]);
}

#[tokio::test]
async fn a_matcher_that_waits_is_woken() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path());
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let spool = spool.clone();
            tokio::spawn(async move { spool.next_unmatched().await.id })
        })
        .collect();
    tokio::task::yield_now().await;
    for n in 0..3 {
        spool.append(request(1, n, 10)).await.unwrap();
    }
    let mut got = Vec::new();
    for w in waiting {
        got.push(w.await.unwrap());
    }
    got.sort();
    assert_eq!(got, [id(1, 0), id(1, 1), id(1, 2)]);
}

#[tokio::test]
async fn what_does_not_fit_in_memory_comes_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), Limits::default()).unwrap();
    for n in 0..6 {
        spool.append(request(1, n, 5 << 20)).await.unwrap();
    }
    for n in 0..6 {
        assert_eq!(*next(&spool).await.unwrap(), request(1, n, 5 << 20));
    }
}
