//! When deliveries are attempted, with attempts that only pretend.

use super::*;
use crate::spool::{Attempt, Next};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Attempts whose runner is slow for some workspaces.
struct Fake {
    workspaces: HashMap<Uuid, Arc<str>>,
    slow: Notify,
    ended: Mutex<Vec<(DeliveryKey, u32)>>,
    failures: u32,
}

impl Attempts for Fake {
    fn way(&self, delivery: &PendingDelivery) -> Way {
        Way { runner: "".into(), workspace: self.workspaces[&delivery.key.trigger].clone() }
    }

    fn ordered(&self, _: Uuid) -> bool {
        false
    }

    fn behind(&self, _: &PendingDelivery) -> bool {
        false
    }

    async fn moved(&self) {
        std::future::pending().await
    }

    fn circuits(&self, _: &HashMap<Way, u64>) {}

    fn unused(&self, _: HashSet<Way>) -> HashSet<Way> {
        HashSet::new()
    }

    async fn attempt(&self, delivery: PendingDelivery) -> (After, RunnerHealth) {
        if self.workspaces[&delivery.key.trigger].starts_with("slow") {
            self.slow.notified().await;
        }
        if self.workspaces[&delivery.key.trigger].starts_with("broken") && delivery.attempts == 0 {
            panic!("a defect");
        }
        self.ended.lock().unwrap().push((delivery.key, delivery.attempts));
        if delivery.attempts < self.failures {
            let (attempts, due_at) = (delivery.attempts + 1, now_millis() + 20);
            return (After::Again(PendingDelivery { attempts, due_at, ..delivery }), RunnerHealth::Unknown);
        }
        (After::Ended, RunnerHealth::Unknown)
    }

    async fn requeued(&self) -> PendingDelivery {
        std::future::pending().await
    }
}

fn pending(n: u128, trigger: u128) -> PendingDelivery {
    let key = DeliveryKey { request: Uuid::from_u128(n), item: 0, trigger: Uuid::from_u128(trigger) };
    PendingDelivery { key, subscription: Uuid::nil(), number: 0, received_at: 0, attempts: 0, due_at: 0 }
}

#[tokio::test]
async fn slow_runners_hold_up_nobody_else() {
    let mut workspaces = HashMap::from([(Uuid::from_u128(0), "quick".into())]);
    workspaces.extend((1..=40).map(|n| (Uuid::from_u128(n), format!("slow-{}", n / 4).into())));
    let fake = Arc::new(Fake { workspaces, slow: Notify::new(), ended: Mutex::default(), failures: 0 });
    let (deliveries, taken) = mpsc::channel(10_000);
    for n in 0..4000 {
        deliveries.try_send(pending(n, 1 + n % 40)).unwrap();
    }
    let end = CancellationToken::new();
    let running = tokio::spawn(Scheduler::new(fake.clone(), Limits::default()).run(taken, end.clone()));
    tokio::time::sleep(Duration::from_millis(50)).await;
    for n in 5000..5100 {
        deliveries.try_send(pending(n, 0)).unwrap();
    }
    until(|| fake.ended.lock().unwrap().len() == 100).await;
    end.cancel();
    fake.slow.notify_waiters();
    running.await.unwrap();
}

#[tokio::test]
async fn a_delivery_is_attempted_once_at_a_time_and_again_when_due() {
    let workspaces = HashMap::from([(Uuid::from_u128(0), "quick".into())]);
    let fake = Arc::new(Fake { workspaces, slow: Notify::new(), ended: Mutex::default(), failures: 2 });
    let (deliveries, taken) = mpsc::channel(10);
    let mut scheduler = Scheduler::new(fake.clone(), Limits::default());
    scheduler.add(pending(1, 0));
    scheduler.add(pending(1, 0));
    let end = CancellationToken::new();
    let running = tokio::spawn(scheduler.run(taken, end.clone()));
    until(|| fake.ended.lock().unwrap().len() == 3).await;
    let attempts: Vec<u32> = fake.ended.lock().unwrap().iter().map(|(_, attempts)| *attempts).collect();
    assert_eq!(attempts, [0, 1, 2]);
    deliveries.send(pending(1, 0)).await.unwrap();
    until(|| fake.ended.lock().unwrap().len() == 6).await;
    end.cancel();
    running.await.unwrap();
}

/// A runner that never answers, and one that does.
#[derive(Default)]
struct Two {
    dead: Mutex<Vec<DeliveryKey>>,
    well: Mutex<Vec<DeliveryKey>>,
    open: Mutex<Vec<usize>>,
}

impl Attempts for Two {
    fn way(&self, delivery: &PendingDelivery) -> Way {
        let runner = if delivery.key.trigger.as_u128() < 100 { "http://dead" } else { "http://well" };
        Way { runner: runner.into(), workspace: "team-a".into() }
    }

    fn ordered(&self, _: Uuid) -> bool {
        false
    }

    fn behind(&self, _: &PendingDelivery) -> bool {
        false
    }

    async fn moved(&self) {
        std::future::pending().await
    }

    fn circuits(&self, open: &HashMap<Way, u64>) {
        self.open.lock().unwrap().push(open.len());
    }

    fn unused(&self, _: HashSet<Way>) -> HashSet<Way> {
        HashSet::new()
    }

    async fn attempt(&self, delivery: PendingDelivery) -> (After, RunnerHealth) {
        if delivery.key.trigger.as_u128() >= 100 {
            self.well.lock().unwrap().push(delivery.key);
            return (After::Ended, RunnerHealth::Answers);
        }
        self.dead.lock().unwrap().push(delivery.key);
        let due_at = now_millis() + 5;
        (After::Again(PendingDelivery { attempts: delivery.attempts + 1, due_at, ..delivery }), RunnerHealth::Fails)
    }

    async fn requeued(&self) -> PendingDelivery {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_runner_that_does_not_answer_is_left_alone_and_holds_up_nobody() {
    let two = Arc::new(Two::default());
    let (deliveries, taken) = mpsc::channel(10_000);
    (0..2000).for_each(|n| deliveries.try_send(pending(n, n % 100)).unwrap());
    let end = CancellationToken::new();
    let running = tokio::spawn(Scheduler::new(two.clone(), Limits::default()).run(taken, end.clone()));
    until(|| *two.open.lock().unwrap() == [1]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let attempts = two.dead.lock().unwrap().len();
    // Those that had begun when the circuit opened, at most as many as one workspace may have at one runner.
    assert!((10..=10 + 32).contains(&attempts), "{attempts}");
    for n in 0..500 {
        deliveries.send(pending(5000 + n, 100 + n % 3)).await.unwrap();
    }
    until(|| two.well.lock().unwrap().len() == 500).await;
    assert_eq!(two.dead.lock().unwrap().len(), attempts, "no attempt is used up while the circuit is open");
    end.cancel();
    running.await.unwrap();
}

/// A runner that does not answer, another that does, and a clock that somebody sets.
#[derive(Default)]
struct Mended {
    clock: AtomicU64,
    /// Whether the trigger 1 leads to the runner that answers; all others lead to the one that does not.
    mended: AtomicBool,
    changed: Notify,
    /// Whether somebody waits for answers.
    awaited: bool,
    called: Mutex<Vec<(u128, &'static str)>>,
    /// Who was told that the runner is left alone.
    rest: Mutex<Vec<u128>>,
    /// What is open, each time that it was told.
    open: Mutex<Vec<Vec<Arc<str>>>>,
    asked: AtomicUsize,
}

impl Mended {
    fn runner(&self, trigger: Uuid) -> &'static str {
        let well = trigger == Uuid::from_u128(1) && self.mended.load(Ordering::Relaxed);
        if well { "http://well" } else { "http://dead" }
    }

    /// Starts the scheduler, and waits until ten deliveries of the trigger 2 have failed.
    async fn begin(self: &Arc<Self>) -> (mpsc::Sender<PendingDelivery>, CancellationToken) {
        let (deliveries, taken) = mpsc::channel(2000);
        let end = CancellationToken::new();
        tokio::spawn(Scheduler::new(self.clone(), Limits::default()).run(taken, end.clone()));
        (0..10).for_each(|n| deliveries.try_send(pending(n, 2)).unwrap());
        until(|| self.open.lock().unwrap().last().is_some_and(|open| open.len() == 1)).await;
        (deliveries, end)
    }

    fn was_called(&self, call: (u128, &'static str)) -> bool {
        self.called.lock().unwrap().contains(&call)
    }

    fn always_open(&self) -> bool {
        self.open.lock().unwrap().iter().all(|open| open.iter().map(|runner| &**runner).eq(["http://dead"]))
    }
}

/// Sends deliveries, and waits until the scheduler has put them where they wait.
async fn hand_over(deliveries: &mpsc::Sender<PendingDelivery>, these: impl IntoIterator<Item = PendingDelivery>) {
    these.into_iter().for_each(|delivery| deliveries.try_send(delivery).unwrap());
    // What it has taken, it puts there before it does anything else.
    until(|| deliveries.capacity() == deliveries.max_capacity()).await;
}

impl Attempts for Mended {
    fn way(&self, delivery: &PendingDelivery) -> Way {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Way { runner: self.runner(delivery.key.trigger).into(), workspace: "team-a".into() }
    }

    fn ordered(&self, trigger: Uuid) -> bool {
        trigger.as_u128() >= 100
    }

    fn behind(&self, _: &PendingDelivery) -> bool {
        true
    }

    fn is_awaited(&self) -> bool {
        self.awaited
    }

    fn rests(&self, delivery: &PendingDelivery) {
        self.rest.lock().unwrap().push(delivery.key.request.as_u128());
    }

    async fn moved(&self) {
        std::future::pending().await
    }

    async fn rerouted(&self) {
        self.changed.notified().await;
    }

    fn circuits(&self, open: &HashMap<Way, u64>) {
        self.open.lock().unwrap().push(open.keys().map(|way| way.runner.clone()).collect());
    }

    fn unused(&self, _: HashSet<Way>) -> HashSet<Way> {
        HashSet::new()
    }

    fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    async fn sleep(&self, _: Duration) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    async fn attempt(&self, delivery: PendingDelivery) -> (After, RunnerHealth) {
        let runner = self.runner(delivery.key.trigger);
        self.called.lock().unwrap().push((delivery.key.request.as_u128(), runner));
        if runner == "http://well" {
            return (After::Ended, RunnerHealth::Answers);
        }
        let due_at = self.now() + HOUR;
        (After::Again(PendingDelivery { attempts: delivery.attempts + 1, due_at, ..delivery }), RunnerHealth::Fails)
    }

    async fn requeued(&self) -> PendingDelivery {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_trigger_that_is_mended_need_not_wait_for_its_old_runner() {
    let mended = Arc::new(Mended::default());
    let (deliveries, end) = mended.begin().await;
    hand_over(&deliveries, [pending(100, 1), pending(101, 1), pending(102, 2)]).await;
    mended.mended.store(true, Ordering::Relaxed);
    mended.changed.notify_one();
    until(|| mended.was_called((100, "http://well")) && mended.was_called((101, "http://well"))).await;
    assert!(!mended.was_called((102, "http://dead")), "its runner is still left alone");
    assert!(mended.always_open());
    end.cancel();
}

#[tokio::test]
async fn an_answer_of_the_new_runner_closes_nothing_of_the_old_one() {
    let mended = Arc::new(Mended::default());
    let (deliveries, end) = mended.begin().await;
    hand_over(&deliveries, [pending(100, 1), pending(102, 2)]).await;
    // It is not told in time: the first that may ask the old runner again belongs to the trigger that was mended.
    mended.mended.store(true, Ordering::Relaxed);
    mended.clock.store(10_000, Ordering::Relaxed);
    until(|| mended.was_called((100, "http://well")) && mended.was_called((102, "http://dead"))).await;
    assert!(!mended.was_called((100, "http://dead")) && mended.always_open());
    end.cancel();
}

#[tokio::test]
async fn that_a_runner_is_left_alone_is_told_to_who_waits_and_costs_nothing_otherwise() {
    for awaited in [false, true] {
        let mended = Arc::new(Mended { awaited, ..Mended::default() });
        let (deliveries, taken) = mpsc::channel(2000);
        let end = CancellationToken::new();
        tokio::spawn(Scheduler::new(mended.clone(), Limits::default()).run(taken, end.clone()));
        let held = (1000..2000).map(|n| PendingDelivery { attempts: u32::from(n == 1999), ..pending(n, 100) });
        hand_over(&deliveries, held).await;
        (0..10).for_each(|n| deliveries.try_send(pending(n, 2)).unwrap());
        until(|| mended.open.lock().unwrap().len() == 1).await;
        let asked = mended.asked.load(Ordering::Relaxed);
        assert!(asked < 100, "{asked}");
        let mut told = mended.rest.lock().unwrap().clone();
        told.sort_unstable();
        assert!(told.into_iter().eq((1000..1999).filter(|_| awaited)));
        end.cancel();
    }
}

/// Runners on a clock that goes on by itself whenever nothing else is to be done.
struct Simulated {
    clock: AtomicU64,
    /// What triggers below 100 get before `repaired`; from then on, and all others, it is 200.
    fault: u16,
    repaired: u64,
    /// When these triggers are deleted.
    gone: u64,
    /// How many circuits are open.
    open: Mutex<Vec<usize>>,
    attempts: Mutex<Vec<(u64, u128)>>,
    delivered: Mutex<HashMap<DeliveryKey, u64>>,
    dead: Mutex<Vec<(u64, String)>>,
}

impl Simulated {
    fn new(fault: u16, repaired: u64) -> Arc<Self> {
        Self::until(fault, repaired, u64::MAX)
    }

    fn until(fault: u16, repaired: u64, gone: u64) -> Arc<Self> {
        Arc::new(Self {
            clock: Default::default(),
            fault,
            repaired,
            gone,
            open: Mutex::default(),
            attempts: Mutex::default(),
            delivered: Mutex::default(),
            dead: Mutex::default(),
        })
    }

    /// Runs the scheduler until all of these are delivered or dead.
    async fn run(self: &Arc<Self>, deliveries: Vec<PendingDelivery>) {
        let (all, end) = (deliveries.len(), CancellationToken::new());
        let mut scheduler = Scheduler::new(self.clone(), Limits::default());
        deliveries.into_iter().for_each(|delivery| scheduler.add(delivery));
        let (_keep, taken) = mpsc::channel(1);
        let running = tokio::spawn(scheduler.run(taken, end.clone()));
        until(|| self.delivered.lock().unwrap().len() + self.dead.lock().unwrap().len() == all).await;
        end.cancel();
        running.await.unwrap();
    }
}

impl Attempts for Simulated {
    fn way(&self, delivery: &PendingDelivery) -> Way {
        let runner = if delivery.key.trigger.as_u128() < 100 { "http://faulty" } else { "http://well" };
        Way { runner: runner.into(), workspace: "team-a".into() }
    }

    fn ordered(&self, _: Uuid) -> bool {
        false
    }

    fn behind(&self, _: &PendingDelivery) -> bool {
        false
    }

    async fn moved(&self) {
        std::future::pending().await
    }

    fn circuits(&self, open: &HashMap<Way, u64>) {
        self.open.lock().unwrap().push(open.len());
    }

    fn unused(&self, ways: HashSet<Way>) -> HashSet<Way> {
        ways.into_iter().filter(|way| &*way.runner == "http://faulty" && self.now() >= self.gone).collect()
    }

    fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    async fn sleep(&self, time: Duration) {
        // Whatever is ready goes first.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let millis = u64::try_from(time.as_millis()).unwrap();
        self.clock.fetch_add(millis.max(1), Ordering::Relaxed);
    }

    async fn attempt(&self, delivery: PendingDelivery) -> (After, RunnerHealth) {
        let now = self.now();
        let trigger = delivery.key.trigger.as_u128();
        if trigger < 100 && now >= self.gone {
            self.dead.lock().unwrap().push((now, "the trigger was deleted".to_owned()));
            return (After::Ended, RunnerHealth::Unknown);
        }
        self.attempts.lock().unwrap().push((now, trigger));
        let status = if trigger < 100 && now < self.repaired { self.fault } else { 200 };
        let outcome = Outcome::Answered { status, retry_after: None };
        let after = match verdict(&outcome, delivery.attempts + 1, 12, 0.5) {
            Verdict::Delivered => {
                self.delivered.lock().unwrap().insert(delivery.key, now);
                After::Ended
            }
            Verdict::Retry(wait) => {
                let due_at = now + u64::try_from(wait.as_millis()).unwrap();
                After::Again(PendingDelivery { attempts: delivery.attempts + 1, due_at, ..delivery })
            }
            Verdict::Dead(reason) => {
                self.dead.lock().unwrap().push((now, reason));
                After::Ended
            }
        };
        (after, outcome.health())
    }

    async fn requeued(&self) -> PendingDelivery {
        std::future::pending().await
    }
}

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

#[tokio::test]
async fn a_runner_that_fails_for_six_hours_gets_everything_afterwards() {
    let simulated = Simulated::new(500, 6 * HOUR);
    // Events of two triggers, each minute: one with this runner, one with another.
    let each_minute = |trigger: u128| {
        (0..400).map(move |n: u64| {
            let due_at = n * MINUTE;
            PendingDelivery { due_at, received_at: due_at, ..pending(u128::from(n) + 1000 * trigger, trigger) }
        })
    };
    simulated.run(each_minute(1).chain(each_minute(100)).collect()).await;
    assert!(simulated.dead.lock().unwrap().is_empty(), "while the circuit is open, attempts are not used up");
    let attempts = simulated.attempts.lock().unwrap();
    let in_vain = attempts.iter().filter(|(at, trigger)| *trigger == 1 && *at < 6 * HOUR).count();
    println!("{in_vain} attempts in six hours at a runner that fails");
    assert!((60..120).contains(&in_vain), "a probe in five minutes: {in_vain}");
    let delivered = simulated.delivered.lock().unwrap();
    let late = |trigger: u128, most: u64| {
        let of_it = delivered.iter().filter(|(key, _)| key.trigger.as_u128() == trigger);
        of_it
            .filter(|(key, at)| {
                let due = (key.request.as_u128() - 1000 * trigger) as u64 * MINUTE;
                **at > due.max(if trigger == 1 { 6 * HOUR } else { 0 }) + most
            })
            .count()
    };
    assert_eq!(late(100, 1000), 0, "the other runner's are never late");
    assert!(late(1, 6 * MINUTE) < 20, "most arrive with the first probe: {}", late(1, 6 * MINUTE));
    assert_eq!(late(1, HOUR), 0, "and all when their own pause is over");
}

#[tokio::test]
async fn a_circuit_that_no_trigger_leads_through_any_more_is_forgotten() {
    let gone = 30 * MINUTE;
    let simulated = Simulated::until(500, u64::MAX, gone);
    // The last one keeps the clock going.
    let faulty = (0..40).map(|n| PendingDelivery { due_at: n, ..pending(n.into(), 1) });
    let last = PendingDelivery { due_at: HOUR, ..pending(1000, 100) };
    simulated.run(faulty.chain([last]).collect()).await;
    let dead = simulated.dead.lock().unwrap();
    assert_eq!(dead.len(), 40);
    assert!(dead.iter().all(|(at, why)| *at <= gone + 2 * MINUTE && why.contains("deleted")), "{dead:?}");
    let open = simulated.open.lock().unwrap();
    assert_eq!((open.first(), open.last()), (Some(&1), Some(&0)), "{open:?}");
}

#[tokio::test]
async fn a_runner_that_is_busy_for_ever_is_asked_for_hours_and_then_given_up() {
    let simulated = Simulated::new(429, u64::MAX);
    simulated.run(vec![pending(1, 1)]).await;
    let seconds: Vec<u64> = simulated.attempts.lock().unwrap().iter().map(|(at, _)| at / 1000).collect();
    assert_eq!(seconds, [0, 1, 4, 13, 40, 121, 364, 1093, 2893, 4693, 6493, 8293]);
    assert_eq!(*simulated.dead.lock().unwrap(), [(8_293_000, "attempt 12 of 12 failed".to_owned())]);
}

/// Attempts whose runner answers, or never does, with a grace of milliseconds.
struct Ending {
    spool: Spool,
    answers: bool,
    begun: AtomicUsize,
}

impl Attempts for Ending {
    fn way(&self, _: &PendingDelivery) -> Way {
        Way { runner: "http://runner".into(), workspace: "team-a".into() }
    }

    fn ordered(&self, _: Uuid) -> bool {
        false
    }

    fn behind(&self, _: &PendingDelivery) -> bool {
        false
    }

    async fn moved(&self) {
        std::future::pending().await
    }

    fn circuits(&self, _: &HashMap<Way, u64>) {}

    fn unused(&self, _: HashSet<Way>) -> HashSet<Way> {
        HashSet::new()
    }

    async fn sleep(&self, _: Duration) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    async fn attempt(&self, delivery: PendingDelivery) -> (After, RunnerHealth) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        if !self.answers {
            return std::future::pending().await;
        }
        let attempt =
            Attempt { at: 1, url: String::new(), status: Some(200), error: None, duration_ms: 1, answer: None };
        self.spool.record_attempt(delivery.key, attempt, Next::Delivered).await.unwrap();
        (After::Ended, RunnerHealth::Answers)
    }

    async fn requeued(&self) -> PendingDelivery {
        std::future::pending().await
    }
}

#[tokio::test]
async fn an_attempt_longer_than_the_grace_is_cut_off_and_repeated_after_the_restart() {
    let dir = tempfile::TempDir::new().unwrap();
    let request = request(1, "push", "{}");
    for (answers, attempts) in [(false, 0), (true, 1)] {
        let spool = Spool::open(dir.path(), Default::default()).unwrap();
        if !answers {
            spool.append(request.clone()).await.unwrap();
            let stored = spool.next_unmatched().await;
            spool.store_match(stored.id, matched(&routes([trigger(1, "sub-1")]), &stored)).await.unwrap();
        }
        let runner = Arc::new(Ending { spool: spool.clone(), answers, begun: AtomicUsize::new(0) });
        let mut scheduler = Scheduler::new(runner.clone(), Limits::default());
        spool.pending().into_iter().for_each(|delivery| scheduler.add(delivery));
        let (_keep, taken) = mpsc::channel(1);
        let end = CancellationToken::new();
        let running = tokio::spawn(scheduler.run(taken, end.clone()));
        until(|| runner.begun.load(Ordering::Relaxed) == 1).await;
        end.cancel();
        tokio::time::timeout(Duration::from_secs(10), running).await.expect("it ends").unwrap();
        let entry = spool.entry(request.id).unwrap().unwrap();
        assert_eq!((entry.deliveries.len(), entry.deliveries[0].attempts.len()), (1, attempts));
        assert_eq!(spool.is_pending(&entry.deliveries[0].key), !answers, "what was cut off is due as before");
    }
}

#[tokio::test]
async fn a_defect_in_an_attempt_frees_its_slot() {
    let workspaces = HashMap::from([(Uuid::from_u128(0), "broken".into()), (Uuid::from_u128(1), "quick".into())]);
    let fake = Arc::new(Fake { workspaces, slow: Notify::new(), ended: Mutex::default(), failures: 0 });
    let (deliveries, taken) = mpsc::channel(10);
    let end = CancellationToken::new();
    let one = Limits { total: 1, workspace: 1, runner: 1, trigger: 1 };
    let running = tokio::spawn(Scheduler::new(fake.clone(), one).run(taken, end.clone()));
    deliveries.send(pending(1, 0)).await.unwrap();
    deliveries.send(pending(2, 1)).await.unwrap();
    until(|| fake.ended.lock().unwrap().len() == 1).await;
    end.cancel();
    running.await.unwrap();
}
