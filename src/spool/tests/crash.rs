//! kill -9 under load: everything that was acknowledged is there.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use super::*;

const DIR: &str = "BELLHOP_SPOOL_CRASH_DIR";
const FROM: &str = "BELLHOP_SPOOL_CRASH_FROM";

/// Of this many requests one stays unmatched and one undelivered.
const WAIT: u64 = 50;

fn limits() -> Limits {
    Limits { max_bytes: 32 * MIB, max_bytes_per_subscription: 16 * MIB, ..small() }
}

/// Not a test by itself: the process that is killed. It writes a line for whatever was acknowledged.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let from: u64 = std::env::var(FROM).unwrap().parse().unwrap();
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    rt.block_on(async {
        let spool = Spool::open(Path::new(&dir), limits()).unwrap();
        let tell = |what: &str, s: u128, n: u64| {
            // One write for the whole line, so that a kill does not tear it.
            let line = format!("\n{what} {s} {n}\n");
            std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
        };
        let tasks = (0..16u128).map(|s| {
            let spool = spool.clone();
            tokio::spawn(async move {
                for n in from.. {
                    let size = (n as usize * 977) % 20_000;
                    spool.append(request(s, n, size)).await.unwrap();
                    tell("stored", s, n);
                    if n % WAIT == 0 {
                        continue;
                    }
                    let p = spool.store_match(id(s, n), matched(n, 1)).await.unwrap();
                    tell("matched", s, n);
                    if n % WAIT != 1 {
                        deliver(&spool, p[0].key, NOW + n).await;
                        tell("delivered", s, n);
                    }
                }
            })
        });
        // A task ends only by a failure, which ends the process, and the parent notices.
        futures::future::select_all(tasks).await.0.unwrap();
    });
}

#[test]
fn nothing_acknowledged_is_lost_to_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: HashSet<(String, u128, u64)> = HashSet::new();
    for round in 0..6u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "spool::tests::crash::child", "--nocapture"])
            .env(DIR, dir.path())
            .env(FROM, (round * 1_000_000).to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stored = 0;
        // Not at the same point every time.
        let enough = 1500 + round * 700;
        for line in lines.map_while(Result::ok) {
            let mut words = line.split(' ');
            let what = words.next().unwrap().to_owned();
            if !["stored", "matched", "delivered"].contains(&what.as_str()) {
                continue;
            }
            let s = words.next().unwrap().parse().unwrap();
            let n = words.next().unwrap().parse().unwrap();
            stored += u64::from(what == "stored");
            acknowledged.insert((what, s, n));
            if stored == enough {
                // What it said before it died is still read, and counts.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(stored >= enough, "the child ended early: {stored} stored");
        check(dir.path(), &acknowledged);
    }
}

fn check(dir: &Path, acknowledged: &HashSet<(String, u128, u64)>) {
    let spool = Spool::open(dir, limits()).unwrap();
    assert_eq!(spool.usage().damaged, 0);
    let pending: HashSet<_> = spool.pending().into_iter().map(|p| p.key.request).collect();
    for (what, s, n) in acknowledged {
        let entry = spool.entry(id(*s, *n)).unwrap();
        let Some(entry) = entry else {
            // Only what is finished may have made room.
            let finished = acknowledged.contains(&("delivered".to_owned(), *s, *n))
                || (n % WAIT > 1 && acknowledged.contains(&("matched".to_owned(), *s, *n)));
            assert!(finished, "{what} {s} {n} is gone");
            continue;
        };
        let size = (*n as usize * 977) % 20_000;
        assert_eq!(entry.request, request(*s, *n, size));
        match what.as_str() {
            "matched" => assert_eq!(entry.matched, Some(matched(*n, 1))),
            "delivered" => assert!(!pending.contains(&id(*s, *n))),
            _ => {}
        }
    }
}
