//! One list out of those of all replicas, page by page.
//!
//! Versions order requests by the time of their receipt, in all replicas, so one list can be made of several.

use super::entry::Entry;
use super::status::Refusal;
use crate::log::model::Version;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;

/// The longest text that is read as a place, in bytes.
const MAX_TEXT: usize = 16 * 1024;

/// How far each replica's log was seen, by its number: the version that changed last. Written as `0:17,1:4`, the resource
/// version of lists and watches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(BTreeMap<String, Version>);

impl Seen {
    /// Reads what was written.
    ///
    /// # Errors
    /// 400: it was not written here.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let seen = Some(text).filter(|text| text.len() <= MAX_TEXT).and_then(pairs);
        let seen = seen.and_then(|seen| seen.into_iter().map(|(replica, version)| Some((replica, version?))).collect());
        seen.map(Self).ok_or_else(|| Refusal::bad_request("resourceVersion: take one that was given with a list here"))
    }

    /// How far the log of this replica was seen.
    pub fn of(&self, replica: &str) -> Option<Version> {
        self.0.get(replica).copied()
    }

    /// Takes note of a version that was seen.
    pub fn see(&mut self, replica: &str, version: Version) {
        let seen = self.0.entry(replica.to_owned()).or_insert(version);
        *seen = latest(*seen, version);
    }
}

/// The one of two versions that changed last.
pub fn latest(one: Version, other: Version) -> Version {
    if (other.touched(), other) > (one.touched(), one) { other } else { one }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<_> = self.0.iter().map(|(replica, version)| format!("{replica}:{version}")).collect();
        f.write_str(&pairs.join(","))
    }
}

/// Pairs of a replica and a version, which may be missing.
fn pairs(text: &str) -> Option<BTreeMap<String, Option<Version>>> {
    let pairs = text.split(',').map(|pair| match pair.split_once(':')? {
        ("", _) => None,
        (replica, "") => Some((replica.to_owned(), None)),
        (replica, version) => Some((replica.to_owned(), Some(version.parse().ok()?))),
    });
    pairs.collect()
}

/// Where a list goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// For each replica that may have more, the version before which it has not been read; nothing: it was not read yet.
    pub before: BTreeMap<String, Option<Version>>,
    /// What was seen when the list began.
    pub seen: Seen,
}

impl Place {
    /// Reads the parameter `continue`.
    ///
    /// # Errors
    /// 400: it was not written here.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let bytes = Some(text).filter(|text| text.len() <= MAX_TEXT).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        let place = text.as_deref().and_then(|text| text.split_once(' ')).and_then(|(before, seen)| {
            let seen = if seen.is_empty() { Seen::default() } else { Seen::parse(seen).ok()? };
            Some(Self { before: pairs(before)?, seen })
        });
        place.ok_or_else(|| Refusal::bad_request("continue: take what came with the page before"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = self.before.iter().map(|(replica, version)| match version {
            Some(version) => format!("{replica}:{version}"),
            None => format!("{replica}:"),
        });
        let before: Vec<_> = before.collect();
        f.write_str(&URL_SAFE_NO_PAD.encode(format!("{} {}", before.join(","), self.seen)))
    }
}

/// What a replica was asked for, and what it has answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Number of the replica.
    pub replica: String,
    /// Before which version it was asked; nothing: for the newest.
    pub before: Option<Version>,
    /// Nothing: it has not answered.
    pub answer: Option<Read>,
}

/// What was read of a replica's log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Read {
    /// The requests that are meant, newest first.
    pub entries: Vec<Entry>,
    /// The one of them that changed last.
    pub latest: Option<Version>,
    /// The oldest version of all that were read, if there may be more before it.
    pub rest: Option<Version>,
}

/// A page of the list of all.
#[derive(Debug, PartialEq)]
pub struct Merged {
    /// The requests, newest first.
    pub entries: Vec<Entry>,
    /// Where it goes on; nothing: this is the end.
    pub rest: Option<Place>,
    /// What was seen when the list began.
    pub seen: Seen,
}

/// Puts what the replicas have answered, each to the question for `limit` requests, into one page; `seen` is that of the
/// page before, if there was one.
///
/// Each answer is taken from its beginning, so that where a replica goes on is the last that was taken of it.
pub fn merge(parts: Vec<Part>, limit: usize, seen: Option<Seen>) -> Merged {
    let first = seen.is_none();
    let (mut seen, mut rest, mut more) = (seen.unwrap_or_default(), BTreeMap::new(), false);
    let mut open = Vec::new();
    for part in parts {
        let Some(read) = part.answer else {
            // Asked again with the next page, if there is one.
            rest.insert(part.replica, part.before);
            continue;
        };
        if first {
            seen.see(&part.replica, read.latest.unwrap_or(Version::NONE));
        }
        open.push((part.replica, part.before, read.rest, VecDeque::from(read.entries)));
    }
    let mut taken = Vec::new();
    while taken.len() < limit {
        let newest = open.iter_mut().filter(|(_, _, _, entries)| !entries.is_empty());
        let newest = newest.max_by(|(_, _, _, a), (_, _, _, b)| a[0].version().cmp(&b[0].version()));
        let Some((_, before, _, entries)) = newest else { break };
        let entry = entries.pop_front().expect("it is not empty");
        *before = Some(entry.version());
        taken.push(entry);
    }
    for (replica, before, older, entries) in open {
        let before = if entries.is_empty() { older.map(Some) } else { Some(before) };
        if let Some(before) = before {
            more = true;
            rest.insert(replica, before);
        }
    }
    let rest = more.then(|| Place { before: rest, seen: seen.clone() });
    Merged { entries: taken, rest, seen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use uuid::Uuid;

    /// The version of a request that was received in this second and changed when it was `age` seconds old.
    fn version(second: u32, age: u32) -> Version {
        let millis = |seconds: u32| 1_700_000_000_000 + u64::from(seconds) * 1000;
        Version::new(millis(second), Uuid::from_u128(u128::from(second) << 96), millis(second + age))
    }

    /// A replica's requests, received in these seconds.
    fn part(replica: &str, seconds: &[u32]) -> Part {
        let entries = seconds.iter().map(|second| {
            let (name, version) = (format!("{replica}-{second}"), version(*second, 0).to_string());
            Entry(json!({"metadata": {"name": name, "resourceVersion": version}}))
        });
        let latest = seconds.first().map(|second| version(*second, 0));
        Part {
            replica: replica.to_owned(),
            before: None,
            answer: Some(Read { entries: entries.collect(), latest, rest: None }),
        }
    }

    /// What a replica answers when it is asked for what is before.
    fn asked(all: &Part, before: Option<Version>, limit: usize) -> Part {
        let older = |entry: &&Entry| before.is_none_or(|before| entry.version() < before);
        let read = all.answer.as_ref().unwrap();
        let entries: Vec<_> = read.entries.iter().filter(older).take(limit).cloned().collect();
        let rest = entries.last().filter(|_| entries.len() == limit).map(Entry::version);
        // Of those, some are not meant: here, what was received in second 40.
        let entries = entries.into_iter().filter(|entry| !entry.name().ends_with("-40")).collect();
        Part { replica: all.replica.clone(), before, answer: Some(Read { entries, latest: read.latest, rest }) }
    }

    #[test]
    fn pages_have_everything_once_and_in_order() {
        let all = [part("0", &[59, 57, 41, 40, 12, 3]), part("1", &[58, 20, 19, 18]), part("2", &[])];
        for limit in 1..12 {
            let (mut names, mut place, mut pages) = (Vec::new(), None::<Place>, 0);
            loop {
                let parts = match &place {
                    None => all.iter().map(|part| asked(part, None, limit)).collect(),
                    Some(place) => {
                        let asked_again = all.iter().filter_map(|part| {
                            place.before.get(&part.replica).map(|before| asked(part, *before, limit))
                        });
                        asked_again.collect::<Vec<_>>()
                    }
                };
                let merged = merge(parts, limit, place.map(|place| place.seen));
                assert!(merged.entries.len() <= limit);
                let (first, second) = (version(59, 0), version(58, 0));
                assert_eq!(merged.seen.to_string(), format!("0:{first},1:{second},2:0"));
                names.extend(merged.entries.iter().map(|entry| entry.name().to_owned()));
                pages += 1;
                assert!(pages < 20, "limit {limit}: no end");
                match merged.rest {
                    // What a client sends back.
                    Some(rest) => place = Some(Place::parse(&rest.to_string()).unwrap()),
                    None => break,
                }
            }
            let expected = ["0-59", "1-58", "0-57", "0-41", "1-20", "1-19", "1-18", "0-12", "0-3"];
            assert_eq!(names, expected, "limit {limit}");
        }
    }

    #[test]
    fn who_has_not_answered_is_asked_again() {
        let silent = Part { replica: "1".to_owned(), before: None, answer: None };
        let merged = merge(vec![part("0", &[3, 2, 1]), silent.clone()], 2, None);
        assert_eq!(merged.rest.unwrap().before, [("0".to_owned(), Some(version(2, 0))), ("1".to_owned(), None)].into());
        // A watch has to tell all that it has.
        assert_eq!((merged.seen.of("0"), merged.seen.of("1")), (Some(version(3, 0)), None));
        // Nobody is sent in circles by one that never answers.
        assert_eq!(merge(vec![part("0", &[3]), silent], 2, None).rest, None);
    }

    #[test]
    fn what_was_not_written_here_is_refused() {
        let text = format!("0:{},1:0", version(1, 2));
        let seen = Seen::parse(&text).unwrap();
        assert_eq!((seen.of("0"), seen.to_string()), (Some(version(1, 2)), text));
        for text in ["17", "0:x", ":", "0:1,", "a", "0:"] {
            assert!(Seen::parse(text).is_err() && Place::parse(text).is_err(), "{text}");
        }
        assert!(Seen::parse(&"0:1,".repeat(5000)).is_err());
        let mut seen = Seen::default();
        // What was received first may have changed last.
        for (second, age) in [(3, 1), (1, 9), (4, 0)] {
            seen.see("0", version(second, age));
        }
        assert_eq!(seen.of("0"), Some(version(1, 9)));
    }
}
