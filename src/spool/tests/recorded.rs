//! A spool that an earlier version has written, kept as it was: what is on disk outlives an upgrade.

use super::*;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// Written by version 0.1.0, in format 1, by [`record`].
const FORMAT_1: &[u8] = include_bytes!("recorded/format-1.tar.gz");

/// A request that waits for the matcher, one with a delivery that was tried twice, one that was delivered, and a dead
/// letter.
async fn write(dir: &Path) {
    let spool = open(dir);
    spool.append(request(1, 0, 100)).await.unwrap();
    let retried = pend(&spool, request(1, 1, 10_000)).await;
    for i in 0..2 {
        let next = Next::Retry { due_at: NOW + i + 60 };
        spool.record_attempt(retried, attempt(NOW + i), next).await.unwrap();
    }
    let key = pend(&spool, request(1, 2, 0)).await;
    deliver(&spool, key, NOW + 9).await;
    let key = pend(&spool, request(2, 3, 3_000)).await;
    kill(&spool, key, NOW + 9).await;
}

/// Writes the recording of a new format: `cargo test --lib spool::tests::recorded -- --ignored`, then rename the file.
#[tokio::test]
#[ignore = "writes into the source tree"]
async fn record() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path()).await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/spool/tests/recorded/new.tar.gz");
    let mut tar = tar::Builder::new(GzEncoder::new(fs::File::create(path).unwrap(), Compression::best()));
    tar.append_dir_all(".", dir.path()).unwrap();
    tar.into_inner().unwrap().finish().unwrap();
}

#[tokio::test]
async fn what_an_earlier_version_wrote_is_read() {
    let (recorded, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tar::Archive::new(GzDecoder::new(FORMAT_1)).unpack(recorded.path()).unwrap();
    write(fresh.path()).await;
    let (old, new) = (open(recorded.path()), open(fresh.path()));
    for (subscription, n) in [(1, 0), (1, 1), (1, 2), (2, 3)] {
        let read = |spool: &Spool| spool.entry(id(subscription, n)).unwrap().unwrap();
        let (old, new) = (read(&old), read(&new));
        // The recorded version did not note it.
        assert!(old.answered_after.is_none());
        // What was written before requests had numbers counts as older than all that came after.
        assert!(old.number == 0 && new.number > 0);
        assert_eq!(old, Entry { answered_after: None, number: 0, ..new }, "request {n}");
    }
    let usage = old.usage();
    assert_eq!((usage.unmatched, usage.pending, usage.dead, usage.finished), (1, 1, 1, 1));
    assert_eq!((usage.damaged, usage.torn), (0, 0));
    // It goes on where it was: what waits is handed out, and a redelivery is recognised.
    assert_eq!(*next(&old).await.unwrap(), request(1, 0, 100));
    assert_eq!(old.pending().len(), 1);
    assert_eq!(old.append(request(1, 2, 0)).await.unwrap(), Appended::Duplicate);
    assert_eq!(old.pending()[0].number, 0);
    assert!(old.unmatched_before(Uuid::from_u128(1), 1));
}
