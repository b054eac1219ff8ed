//! How much the calls of one plugin with one set of credentials may take of one external system: a number of calls at a
//! time, a number of calls per second, and none while the external system asks to be left alone.
//!
//! A call that would have to wait longer than [`PATIENCE`] is refused, so that a pass of the controller does not hang.
//! A call that waits has its place in time from the start: the wait is known when it begins, those that wait do not
//! compete for it again when it ends, and the refused ones are told when it is worth another try.

use super::quota::Pause;
use super::rate::{Rate, Schedule};
use crate::plugin::Secret;
use k8s_openapi::jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The longest time that a call waits for its turn.
const PATIENCE: Duration = Duration::from_secs(3);
/// Calls that may be under way at a time. One that hangs holds up those behind it, and of other credentials nobody.
const AT_ONCE: usize = 4;
/// How much may be done at once after a time without calls, in seconds of the rate: to create a few Subscriptions at once
/// should not be slow.
const BURST_SECONDS: f64 = 2.0;
/// Budgets that are remembered. Beyond that, those without a call under way are forgotten.
const MOST: usize = 10_000;

/// Whose calls count together.
///
/// Only a digest of the credentials is kept.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BudgetKey([u8; 32]);

impl BudgetKey {
    /// The calls of the plugin with this name that are made with these credentials, in a fixed order; without any, all of
    /// the plugin's calls that need none.
    pub fn new<'a>(plugin: &'a str, credentials: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut digest = Sha256::new();
        let parts = std::iter::once(plugin.as_bytes()).chain(credentials.into_iter().map(Secret::expose));
        for part in parts {
            // The length keeps "ab", "c" and "a", "bc" apart.
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        Self(digest.finalize().into())
    }

    /// The same credentials have a budget for each external system: limits are those of one of them, and none may close
    /// another with what it asks for.
    fn at(&self, origin: &str) -> [u8; 32] {
        Sha256::new().chain_update(self.0).chain_update(origin.as_bytes()).finalize().into()
    }
}

impl std::fmt::Debug for BudgetKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BudgetKey")
    }
}

/// A call that may not be made now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Throttled {
    /// When it is worth another try.
    pub retry_after: Duration,
    /// Words that stay the same until then: they end up in a condition, and each change of that starts another pass.
    pub why: String,
}

/// All budgets.
#[derive(Clone)]
pub(super) struct Budgets {
    calls_per_second: f64,
    patience: Duration,
    all: Arc<Mutex<HashMap<[u8; 32], Budget>>>,
}

struct Budget {
    turns: Arc<Semaphore>,
    schedule: Schedule,
    closed: Option<Closed>,
}

struct Closed {
    until: Instant,
    why: String,
}

/// A call that is under way.
pub(super) struct Turn {
    budgets: Budgets,
    key: [u8; 32],
    _permit: OwnedSemaphorePermit,
}

impl Budgets {
    /// Budgets that are all empty.
    pub fn new(calls_per_second: f64) -> Self {
        Self { calls_per_second, patience: PATIENCE, all: Arc::default() }
    }

    /// Waits for the turn of a call to `origin`.
    pub async fn turn(&self, key: &BudgetKey, origin: &str) -> Result<Turn, Throttled> {
        let key = key.at(origin);
        let (wait, turns) = {
            let mut all = self.lock();
            let budget = budget(&mut all, key, MOST);
            let now = Instant::now();
            budget.open(now)?;
            (budget.reserve(self.calls_per_second, self.patience, now)?, budget.turns.clone())
        };
        tokio::time::sleep(wait).await;
        let Ok(permit) = tokio::time::timeout(self.patience, turns.acquire_owned()).await else {
            let why = format!("{AT_ONCE} calls with the same credentials are under way already");
            return Err(Throttled { retry_after: self.patience, why });
        };
        // The calls before this one may have been told to stop.
        budget(&mut self.lock(), key, MOST).open(Instant::now())?;
        Ok(Turn { budgets: self.clone(), key, _permit: permit.expect("it is never closed") })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Budget>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Makes no call before the end of `pause`.
    pub fn pause(&self, pause: Pause) {
        let end = Timestamp::now() + pause.length;
        let closed = Closed {
            until: Instant::now() + pause.length,
            why: format!("it asks for a pause until {end:.0} ({})", pause.header),
        };
        let mut all = self.budgets.lock();
        let budget = budget(&mut all, self.key, MOST);
        if budget.closed.as_ref().is_none_or(|now| now.until < closed.until) {
            budget.closed = Some(closed);
        }
    }
}

impl Budget {
    fn open(&mut self, now: Instant) -> Result<(), Throttled> {
        match &self.closed {
            Some(closed) if closed.until > now => {
                Err(Throttled { retry_after: closed.until - now, why: closed.why.clone() })
            }
            _ => {
                self.closed = None;
                Ok(())
            }
        }
    }

    /// Takes the next free place in time, and says how far away it is.
    fn reserve(&mut self, calls_per_second: f64, patience: Duration, now: Instant) -> Result<Duration, Throttled> {
        let rate = Rate {
            interval: Duration::from_secs_f64(1.0 / calls_per_second),
            burst: ((BURST_SECONDS * calls_per_second) as u32).max(1),
        };
        self.schedule.reserve(rate, patience, now).map_err(|retry_after| {
            let why = format!(
                "its calls with the same credentials are limited to {calls_per_second} per second \
                 (--external-calls-per-second), and many are waiting"
            );
            Throttled { retry_after, why }
        })
    }

    /// Whether it is worth remembering.
    fn is_idle(&self, now: Instant) -> bool {
        let closed = self.closed.as_ref().is_some_and(|closed| closed.until > now);
        !closed && self.schedule.is_idle(now) && !self.is_in_use()
    }

    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.turns) > 1
    }
}

/// The budget of a key, new if there is none; then, if there are `most`, others are forgotten.
fn budget(all: &mut HashMap<[u8; 32], Budget>, key: [u8; 32], most: usize) -> &mut Budget {
    if all.len() >= most && !all.contains_key(&key) {
        make_room(all, most);
    }
    all.entry(key).or_insert_with(|| Budget {
        turns: Arc::new(Semaphore::new(AT_ONCE)),
        schedule: Schedule::new(Instant::now()),
        closed: None,
    })
}

fn make_room(all: &mut HashMap<[u8; 32], Budget>, most: usize) {
    let now = Instant::now();
    all.retain(|_, budget| !budget.is_idle(now));
    if all.len() < most {
        return;
    }
    // Whoever makes so many external systems ask for a pause has no claim that each is remembered. Half of them go, so
    // that this is not done again for the next call. A call that is under way keeps its budget.
    let mut room = all.len() - most / 2;
    all.retain(|_, budget| {
        let stays = room == 0 || budget.is_in_use();
        room -= usize::from(!stays);
        stays
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(token: &str) -> BudgetKey {
        BudgetKey::new("gitea", [&Secret::from(token.to_owned())])
    }

    const PAUSE: Pause = Pause { length: Duration::from_secs(30), header: "Retry-After" };

    fn budgets() -> Budgets {
        Budgets { patience: Duration::from_millis(200), ..Budgets::new(1000.0) }
    }

    fn empty(now: Instant) -> Budget {
        Budget { turns: Arc::new(Semaphore::new(AT_ONCE)), schedule: Schedule::new(now), closed: None }
    }

    #[test]
    fn after_a_burst_calls_come_at_the_rate_and_those_beyond_the_patience_are_refused() {
        let now = Instant::now();
        let mut budget = empty(now);
        let outcomes: Vec<_> = (0..100).map(|_| budget.reserve(10.0, PATIENCE, now)).collect();
        let waits: Vec<_> = outcomes.iter().filter_map(|wait| wait.as_ref().ok()).map(Duration::as_millis).collect();
        // 20 at once, then one each tenth of a second for three seconds.
        let expected: Vec<_> = std::iter::repeat_n(0, 20).chain((1..=30).map(|n| n * 100)).collect();
        assert_eq!(waits, expected);
        let refused = outcomes[99].as_ref().unwrap_err();
        assert!(refused.retry_after > PATIENCE && refused.why.contains("--external-calls-per-second"), "{refused:?}");
        // At the time that it was told, there is room.
        assert_eq!(budget.reserve(10.0, PATIENCE, now + refused.retry_after), Ok(Duration::ZERO));
    }

    #[test]
    fn a_rate_below_one_call_per_second_is_kept() {
        let now = Instant::now();
        let mut budget = empty(now);
        for expected in [0, 2] {
            assert_eq!(budget.reserve(0.5, PATIENCE, now), Ok(Duration::from_secs(expected)));
        }
        assert_eq!(budget.reserve(0.5, PATIENCE, now).unwrap_err().retry_after, Duration::from_secs(4));
        assert_eq!(budget.reserve(0.5, PATIENCE, now + Duration::from_secs(60)), Ok(Duration::ZERO));
    }

    #[tokio::test]
    async fn what_hangs_holds_up_only_its_own_credentials() {
        let budgets = budgets();
        let mut hanging = Vec::new();
        for _ in 0..AT_ONCE {
            hanging.push(budgets.turn(&key("a"), "http://one").await.unwrap());
        }
        let start = Instant::now();
        let refused = budgets.turn(&key("a"), "http://one").await.map(drop).unwrap_err();
        assert!(refused.why.contains("under way") && start.elapsed() >= budgets.patience, "{refused:?}");
        let start = Instant::now();
        budgets.turn(&key("b"), "http://one").await.map(drop).unwrap();
        budgets.turn(&key("a"), "http://two").await.map(drop).unwrap();
        budgets.turn(&BudgetKey::new("other", [&Secret::from("a".to_owned())]), "http://one").await.map(drop).unwrap();
        assert!(start.elapsed() < budgets.patience);
        hanging.pop();
        budgets.turn(&key("a"), "http://one").await.map(drop).unwrap();
    }

    #[tokio::test]
    async fn a_pause_is_kept_by_all_calls_with_the_same_credentials() {
        let budgets = budgets();
        let turn = budgets.turn(&key("a"), "http://one").await.unwrap();
        turn.pause(PAUSE);
        // A shorter one does not end a longer one.
        turn.pause(Pause { length: Duration::from_millis(1), header: "Retry-After" });
        drop(turn);
        tokio::time::sleep(Duration::from_millis(5)).await;
        let first = budgets.turn(&key("a"), "http://one").await.map(drop).unwrap_err();
        assert!(first.retry_after < PAUSE.length && first.retry_after > Duration::from_secs(29), "{first:?}");
        assert!(first.why.contains("Retry-After") && first.why.contains('Z'), "{}", first.why);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let second = budgets.turn(&key("a"), "http://one").await.map(drop).unwrap_err();
        assert_eq!(first.why, second.why, "words that change would make one pass after the other");
        assert!(second.retry_after < first.retry_after);
        budgets.turn(&key("b"), "http://one").await.map(drop).unwrap();
    }

    #[test]
    fn a_pause_ends() {
        let now = Instant::now();
        let mut budget = empty(now);
        budget.closed = Some(Closed { until: now + PAUSE.length, why: String::new() });
        assert!(budget.open(now + Duration::from_secs(29)).is_err());
        assert!(budget.open(now + PAUSE.length).is_ok());
        assert!(budget.closed.is_none());
    }

    #[tokio::test]
    async fn whoever_waited_for_a_turn_learns_of_a_pause() {
        let budgets = Budgets { patience: PATIENCE, ..budgets() };
        let mut turns = Vec::new();
        for _ in 0..AT_ONCE {
            turns.push(budgets.turn(&key("a"), "http://one").await.unwrap());
        }
        let waiting = tokio::spawn({
            let budgets = budgets.clone();
            async move { budgets.turn(&key("a"), "http://one").await.map(drop) }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        turns[0].pause(PAUSE);
        drop(turns);
        assert!(waiting.await.unwrap().unwrap_err().why.contains("pause"));
    }

    #[test]
    fn what_is_idle_is_forgotten_and_the_memory_is_bounded() {
        let mut all = HashMap::new();
        let id = |number: u64| BudgetKey::new(&number.to_string(), []).at("http://one");
        for number in 0..10 {
            budget(&mut all, id(number), 10);
        }
        let held = all[&id(3)].turns.clone();
        let closed = || Some(Closed { until: Instant::now() + PAUSE.length, why: String::new() });
        all.get_mut(&id(4)).unwrap().closed = closed();
        budget(&mut all, id(10), 10);
        assert_eq!(all.len(), 3, "one in use, one closed, and the new one");

        // All of them closed: some go, never the one in use.
        for number in 0..1000 {
            budget(&mut all, id(number), 10).closed = closed();
            assert!(all.len() <= 10 && all.contains_key(&id(3)), "{}", all.len());
        }
        drop(held);
    }

    #[test]
    fn keys_keep_their_parts_apart_and_show_nothing() {
        let secret = |text: &str| Secret::from(text.to_owned());
        let of = |plugin: &str, parts: &[Secret]| BudgetKey::new(plugin, parts);
        assert!(of("p", &[secret("ab"), secret("c")]) != of("p", &[secret("a"), secret("bc")]));
        assert!(of("pa", &[secret("b")]) != of("p", &[secret("ab")]));
        assert!(of("p", &[secret("a")]) == of("p", &[secret("a")]));
        assert_eq!(format!("{:?}", of("p", &[secret("a")])), "BudgetKey");
    }
}
