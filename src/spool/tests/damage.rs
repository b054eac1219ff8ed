//! Torn and garbled files, and disks that fail.

use super::*;

/// Stores ten requests; returns the file they are in and its length without zeros at the end.
async fn ten(dir: &Path) -> (PathBuf, usize) {
    let spool = open(dir);
    for n in 0..10 {
        spool.append(request(1, n, 1000)).await.unwrap();
    }
    drop(spool);
    let path = segments(dir).pop().unwrap();
    let len = fs::read(&path).unwrap().len();
    (path, len)
}

fn present(spool: &Spool) -> Vec<u64> {
    let there = |n: &u64| spool.entry(id(1, *n)).unwrap().is_some();
    (0..20).filter(there).collect()
}

#[tokio::test]
async fn a_torn_tail_costs_only_the_torn_record() {
    for cut in [1, 500, 1100] {
        let dir = tempfile::tempdir().unwrap();
        let (path, len) = ten(dir.path()).await;
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len((len - cut) as u64).unwrap();
        let spool = open(dir.path());
        assert_eq!(spool.usage().torn, 1, "cut {cut}");
        assert_eq!(present(&spool), (0..9).collect::<Vec<_>>());
        // It goes on behind the last whole record, and the torn one is gone for good.
        spool.append(request(1, 10, 10)).await.unwrap();
        drop(spool);
        let spool = open(dir.path());
        assert_eq!((spool.usage().torn, spool.usage().damaged), (0, 0));
        let expected: Vec<u64> = (0..9).chain([10]).collect();
        assert_eq!(present(&spool), expected);
    }
}

#[tokio::test]
async fn a_garbled_tail_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (path, len) = ten(dir.path()).await;
    let mut content = fs::read(&path).unwrap();
    content[len - 700..len - 300].fill(0xa5);
    fs::write(&path, content).unwrap();
    let spool = open(dir.path());
    assert_eq!(spool.usage().torn, 1);
    assert_eq!(present(&spool), (0..9).collect::<Vec<_>>());
}

#[tokio::test]
async fn damage_in_the_middle_costs_only_what_it_hit() {
    let dir = tempfile::tempdir().unwrap();
    let (path, len) = ten(dir.path()).await;
    let mut content = fs::read(&path).unwrap();
    content[len / 2..len / 2 + 8].fill(0xff);
    fs::write(&path, content).unwrap();
    let spool = open(dir.path());
    assert_eq!((spool.usage().torn, spool.usage().damaged), (0, 1));
    assert_eq!(present(&spool).len(), 9);
    assert!(present(&spool).contains(&9));
}

#[tokio::test]
async fn a_record_that_rots_while_the_spool_is_open_becomes_a_dead_letter() {
    let dir = tempfile::tempdir().unwrap();
    ten(dir.path()).await;
    let spool = open(dir.path());
    let path = segments(dir.path()).pop().unwrap();
    let mut content = fs::read(&path).unwrap();
    content[64 + 600] ^= 1;
    fs::write(&path, content).unwrap();
    assert_eq!(next(&spool).await.unwrap().id, id(1, 1));
    let rotten = spool.entry(id(1, 0));
    assert!(matches!(rotten, Err(SpoolError::Damaged { .. })));
    // Nobody waits for that record; what is asked later comes after it.
    spool.sweep(NOW).await.unwrap();
    assert_eq!(spool.usage().dead, 1);
}

#[tokio::test]
async fn garbage_instead_of_a_segment_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    ten(dir.path()).await;
    fs::write(dir.path().join("segment-0000000077.log"), b"nonsense").unwrap();
    fs::write(dir.path().join("segment-0000000078.log"), b"").unwrap();
    let spool = open(dir.path());
    assert_eq!(present(&spool).len(), 10);
    for n in 10..20 {
        spool.append(request(1, n, 30_000)).await.unwrap();
    }
    drop(spool);
    assert_eq!(present(&open(dir.path())).len(), 20);
}

#[tokio::test]
async fn a_failing_disk_is_never_a_success() {
    for fault in [Fault::Write, Fault::Sync] {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path());
        let key = pend(&spool, request(1, 1, 10)).await;
        let fail = || *spool.inner.fault.lock().unwrap() = Some(fault);

        fail();
        let e = spool.append(request(1, 2, 10)).await.err().unwrap();
        assert!(matches!(e, AppendError::Failed(_)), "{e}");
        assert!(e.to_string().contains("disk refuses"), "{e}");
        assert!(spool.entry(id(1, 2)).unwrap().is_none());
        assert!(spool.usage().unmatched == 0);
        // The same, sent again, is not taken for a duplicate.
        fail();
        assert!(spool.append(request(1, 2, 10)).await.is_err());
        let done = spool.append(request(1, 2, 10)).await.unwrap();
        assert_eq!(done, Appended::Stored);

        fail();
        let e = spool.store_match(id(1, 2), matched(2, 3)).await;
        assert!(matches!(e, Err(SpoolError::Failed(_))));
        let pending = spool.store_match(id(1, 2), matched(2, 2)).await.unwrap();
        assert_eq!(pending.len(), 2);
        fail();
        let e = spool.record_attempt(key, attempt(NOW), Next::Delivered);
        assert!(e.await.is_err());
        assert_eq!(spool.pending().len(), 3);
        deliver(&spool, key, NOW).await;
        fail();
        assert!(spool.sweep(NOW + 100 * HOUR).await.is_err());
        assert_eq!(spool.usage().pending, 1);

        let before = spool.entry(id(1, 2)).unwrap();
        drop(spool);
        let spool = open(dir.path());
        // A failed write may have left traces, but not instead of what came after it.
        assert_eq!(spool.entry(id(1, 2)).unwrap().unwrap().matched, before.unwrap().matched);
        assert_eq!(spool.usage().finished, 1);
    }
}
