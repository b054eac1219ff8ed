//! The controller is killed (kill -9) between any two of its writes and calls, when a Subscription is made and when it is
//! deleted: what is there in the end is the same.
//!
//! Bellhop reaches the API server and Gitea through proxies that share a counter of what changes something. Round N of a
//! test kills Bellhop at the N-th such call, starts it again, and waits for the end; the rounds are over when one of them
//! needs fewer calls than N. Writes that come from time and not from the Subscription (the Lease), and events, which are
//! told once or not at all, are not counted.

use crate::support::{INGRESS_NAMESPACE, NAMESPACE, PATIENCE, REPOSITORY, Workspace, callback_url, install, options};
use anyhow::{Context, Result, ensure};
use bellhop::api::{Subscription, TriggerPlugin};
use bellhop_harness::bellhop::Bellhop;
use bellhop_harness::control_plane::ControlPlane;
use bellhop_harness::proxy::{Action, Hold, Proxy};
use bellhop_harness::server::Call;
use bellhop_harness::{eventually, world};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use reqwest::Method;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// No path has so many calls; that the rounds end before shows that the kill came at all points.
const MOST_ROUNDS: usize = 30;

/// When Bellhop is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The N-th call was carried out, and its answer never arrives.
    AnswerLost,
    /// The answer to the N-th call has arrived, and nothing that follows it is carried out.
    AnswerHeard,
}

/// What counts calls, and stops what comes after the N-th.
#[derive(Default)]
struct Tripwire {
    state: Mutex<Tripped>,
}

#[derive(Default)]
struct Tripped {
    /// `None`: it is not armed.
    at: Option<(usize, Moment)>,
    calls: Vec<String>,
    hold: Hold,
}

impl Tripwire {
    /// Starts counting from nothing; gives what tells that the moment has come.
    fn arm(&self, at: usize, moment: Moment) -> Hold {
        let hold = Hold::new();
        *self.lock() = Tripped { at: Some((at, moment)), calls: Vec::new(), hold: hold.clone() };
        hold
    }

    /// Lets everything pass again; gives the calls that were counted.
    fn disarm(&self) -> Vec<String> {
        let mut state = self.lock();
        state.at = None;
        std::mem::take(&mut state.calls)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tripped> {
        self.state.lock().expect("no panic while the lock is held")
    }

    fn action(&self, call: &Call) -> Action {
        let mut state = self.lock();
        let Some((at, moment)) = state.at else { return Action::Pass };
        if !changes_something(call) {
            return Action::Pass;
        }
        let path = call.path.split('?').next().unwrap_or_default();
        state.calls.push(format!("{} {path}", call.method));
        match (state.calls.len().cmp(&at), moment) {
            (std::cmp::Ordering::Less, _) => Action::Pass,
            (std::cmp::Ordering::Equal, Moment::AnswerLost) => Action::ForwardThenHold(state.hold.clone()),
            (std::cmp::Ordering::Equal, Moment::AnswerHeard) => Action::Pass,
            (std::cmp::Ordering::Greater, _) => Action::HoldThenForward(state.hold.clone()),
        }
    }
}

fn changes_something(call: &Call) -> bool {
    call.method != Method::GET
        && call.method != Method::HEAD
        && !call.path.contains("/leases")
        && !call.path.contains("/events")
        // Questions that are put by POST.
        && !call.path.contains("reviews")
}

#[derive(Clone, Copy, Debug)]
enum Path {
    Creation,
    Deletion,
}

struct Stage<'a> {
    bellhop: Bellhop,
    tripwire: Arc<Tripwire>,
    workspace: Workspace<'a>,
    gitea_calls: Proxy,
    _api_calls: Proxy,
}

impl<'a> Stage<'a> {
    async fn new(control_plane: &'a ControlPlane, name: &str) -> Result<Stage<'a>> {
        let tripwire = Arc::new(Tripwire::default());
        let gitea = &world::shared().await.gitea;
        let (api_calls, gitea_calls) =
            (Proxy::start_for_api_server(control_plane.config().await?)?, Proxy::start(&gitea.url())?);
        for proxy in [&api_calls, &gitea_calls] {
            let tripwire = tripwire.clone();
            proxy.on_call(move |call| tripwire.action(call));
        }
        let mut options = options(name, control_plane);
        options.kubeconfig = world::dir().join(format!("{name}.kubeconfig"));
        api_calls.write_kubeconfig(&options.kubeconfig)?;
        let bellhop = Bellhop::start(options).await?;
        let mut workspace = Workspace::new(control_plane, gitea, name).await?;
        workspace.base_url = gitea_calls.url();
        Ok(Stage { bellhop, tripwire, workspace, gitea_calls, _api_calls: api_calls })
    }

    /// Kills Bellhop when the moment comes, and starts it again; `false` if the path ends before that.
    async fn kill(&mut self, path: Path, name: &str, hold: &Hold) -> Result<bool> {
        let ended = async {
            eventually(PATIENCE, "it is done without the call that is waited for", async || match path {
                Path::Creation => self.is_ready(name).await,
                Path::Deletion => self.nothing_is_left(name).await,
            })
            .await?;
            // A last call may be on its way.
            tokio::time::sleep(Duration::from_millis(300)).await;
            anyhow::Ok(false)
        };
        let reached = async { hold.reached(2 * PATIENCE).await.map(|()| true) };
        let killed = tokio::select! {
            biased;
            reached = reached => reached?,
            ended = ended => ended?,
        };
        if killed {
            self.bellhop.kill9();
        }
        let calls = self.tripwire.disarm();
        if killed {
            // What was held has not been carried out, and never is: nobody releases it.
            eprintln!("{path:?}: killed at {}", calls.last().map_or("", String::as_str));
            self.bellhop.restart().await?;
        } else {
            eprintln!("{path:?}: {} calls: {}", calls.len(), calls.join(", "));
        }
        Ok(killed)
    }

    async fn is_ready(&self, name: &str) -> Result<()> {
        let subscription = self.workspace.api::<Subscription>().get(name).await?;
        let conditions = subscription.status.map(|status| status.conditions).unwrap_or_default();
        ensure!(conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"), "{conditions:?}");
        Ok(())
    }

    /// One webhook, with the right URL and the right secret.
    async fn has_one_webhook(&self, name: &str) -> Result<()> {
        self.workspace.subscription_is(name, "Ready", "True", "").await?;
        let subscription = self.workspace.api::<Subscription>().get(name).await?;
        let hooks = self.workspace.hooks().await?;
        ensure!(hooks.len() == 1, "exactly one webhook: {hooks:?}");
        ensure!(hooks[0]["config"]["url"] == callback_url(&subscription)?.as_str(), "{hooks:?}");
        let path = format!("/api/v1/repos/{}/{REPOSITORY}/hooks/{}/tests", self.workspace.user.name, hooks[0]["id"]);
        let before = self.accepted().await?;
        let (status, body) = self.workspace.gitea.api(Method::POST, &path, &self.workspace.user, None).await?;
        ensure!(status.is_success(), "{status}: {body}");
        eventually(PATIENCE, "a push is believed", async || {
            let refused = self.bellhop.metric("bellhop_requests_total", &["answer=\"unverified\""]).await?;
            ensure!(refused == 0.0, "the secret in Gitea is not the one in custody");
            ensure!(self.accepted().await? > before, "nothing has arrived");
            Ok(())
        })
        .await
    }

    fn creates(&self) -> usize {
        self.gitea_calls.count("POST", |path| path.ends_with("/hooks"))
    }

    async fn accepted(&self) -> Result<f64> {
        self.bellhop.metric("bellhop_requests_total", &["answer=\"accepted\""]).await
    }

    /// Neither in Gitea nor in Bellhop's namespaces.
    async fn nothing_is_left(&self, name: &str) -> Result<()> {
        let client = &self.workspace.client;
        ensure!(self.workspace.api::<Subscription>().get_opt(name).await?.is_none(), "the Subscription is there");
        let hooks = self.workspace.hooks().await?;
        ensure!(hooks.is_empty(), "webhooks: {hooks:?}");
        let all = ListParams::default();
        for namespace in [NAMESPACE, INGRESS_NAMESPACE] {
            let secrets = Api::<Secret>::namespaced(client.clone(), namespace).list(&all).await?;
            let of_subscriptions = secrets.iter().map(|secret| secret.name_any());
            let left: Vec<_> =
                of_subscriptions.filter(|name| name.starts_with("custody-") || name.starts_with("route-")).collect();
            ensure!(left.is_empty(), "Secrets in {namespace}: {left:?}");
        }
        for map in Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE).list(&all).await? {
            let text = serde_json::to_string(&map.data)?;
            let tells = map.name_any() == "bellhop-orphaned-webhooks" || map.name_any().starts_with("slots.");
            ensure!(!tells || !text.contains(name), "{}: {text}", map.name_any());
        }
        let plugin = Api::<TriggerPlugin>::all(client.clone()).get("gitea").await?;
        ensure!(plugin.finalizers().is_empty(), "the plugin is held: {:?}", plugin.finalizers());
        Ok(())
    }

    /// Makes a Subscription and deletes it, with a kill on the way to each; says which of them took place.
    async fn round(&mut self, number: usize, moment: Moment) -> Result<(bool, bool)> {
        let name = format!("{}-{number:02}", format!("{moment:?}").to_lowercase());
        let hold = self.tripwire.arm(number, moment);
        self.workspace.create_subscription(self.workspace.subscription(&name)).await?;
        let made = self.kill(Path::Creation, &name, &hold).await.context("on the way to Ready")?;
        self.has_one_webhook(&name).await?;

        let hold = self.tripwire.arm(number, moment);
        self.workspace.api::<Subscription>().delete(&name, &DeleteParams::default()).await?;
        let deleted = self.kill(Path::Deletion, &name, &hold).await.context("on the way to nothing")?;
        eventually(PATIENCE, "nothing is left", async || self.nothing_is_left(&name).await).await?;
        Ok((made, deleted))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_any_two_calls_it_ends_the_same() -> Result<()> {
    world::shared().await;
    let control_plane = ControlPlane::start(world::dir(), "control-plane-crash-points").await?;
    install(&control_plane).await?;
    let mut stage = Stage::new(&control_plane, "crash-points").await?;
    for moment in [Moment::AnswerLost, Moment::AnswerHeard] {
        let (mut kills, mut rounds) = (0, 0);
        let before = stage.creates();
        for number in 1.. {
            ensure!(number <= MOST_ROUNDS, "{moment:?}: the calls do not end");
            rounds += 1;
            let round = stage.round(number, moment).await.with_context(|| format!("{moment:?}, call {number}"))?;
            match round {
                (false, false) => break,
                (made, deleted) => kills += usize::from(made) + usize::from(deleted),
            }
        }
        eprintln!("{moment:?}: {kills} kills");
        // Finalizers, slot, custody, route, three states of the webhook, the call, status; and the way back.
        ensure!(kills >= 12, "{moment:?}: only {kills} kills");
        // One for each Subscription, and the one that was held right before Gitea saw it.
        let creates = stage.creates() - before;
        ensure!(creates <= rounds + 1, "{creates} create calls in {rounds} rounds");
    }
    Ok(())
}
