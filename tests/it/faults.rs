//! Every call to the external system fails in every way, in front of a real Gitea: one webhook at the end, none after the
//! deletion, a condition that a person understands as long as it lasts, and no more calls than it takes.
//!
//! Each fault has a workspace, with a Subscription for each call that it can hit. The plugin of such a Subscription is
//! Gitea's, with that one call sent by way of a second proxy, which has the fault.

use crate::support::{NAMESPACE, Own, PATIENCE, REPOSITORY, Workspace, callback_url, note_secret};
use anyhow::{Context, Result, ensure};
use bellhop::api::{Subscription, TriggerPlugin};
use bellhop_harness::proxy::{Action, Hold, Proxy};
use bellhop_harness::server::Reply;
use bellhop_harness::{eventually, world};
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// How long a fault lasts.
const FAULT: Duration = Duration::from_secs(12);

/// A Bellhop with a short time-out on a control plane of its own, for all tests of outgoing calls. No test stops it.
pub async fn impatient() -> &'static Own {
    static OWN: OnceCell<Own> = OnceCell::const_new();
    let start = async || {
        let ca = crate::outgoing::authority_file()?;
        let own = Own::start("impatient", &["--external-timeout=5s", "--external-ca-file", &ca]).await?;
        for call in Call::ALL {
            install_plugin(&own, call).await?;
        }
        anyhow::Ok(own)
    };
    match OWN.get_or_try_init(start).await {
        Ok(own) => own,
        Err(error) => panic!("the impatient Bellhop does not start: {error:#}"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Verify,
    Find,
    Create,
    Delete,
}

impl Call {
    const ALL: [Call; 4] = [Call::Verify, Call::Find, Call::Create, Call::Delete];

    /// Its name in the plugin and in messages.
    fn name(self) -> &'static str {
        match self {
            Call::Verify => "verify",
            Call::Find => "find",
            Call::Create => "create",
            Call::Delete => "delete",
        }
    }

    fn plugin(self) -> String {
        format!("gitea-faulty-{}", self.name())
    }

    /// The condition that tells of its failure.
    fn condition(self) -> &'static str {
        match self {
            Call::Verify => "Authorized",
            Call::Find | Call::Create => "WebhookRegistered",
            Call::Delete => "Ready",
        }
    }
}

async fn install_plugin(own: &Own, call: Call) -> Result<()> {
    let plugins = Api::<TriggerPlugin>::all(own.control_plane.client().await?);
    let mut spec = serde_json::to_value(&plugins.get("gitea").await?.spec)?;
    let url = &mut spec["webhook"][call.name()]["url"];
    *url = json!(url.as_str().context("a URL")?.replace("parameters.baseURL", "parameters.faultyURL"));
    spec["parameters"]["properties"]["faultyURL"] = json!({"type": "string"});
    spec["allowedOrigins"] = json!(["{+parameters.baseURL}", "{+parameters.faultyURL}"]);
    let plugin = TriggerPlugin::new(&call.plugin(), serde_json::from_value(spec)?);
    plugins.create(&PostParams::default(), &plugin).await?;
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    ConnectionRefused,
    /// Gitea has acted, and its answer does not come.
    TimeOut,
    /// Gitea has not acted, and this is the answer.
    Refusal(u16),
    /// Gitea has not acted, and asks for a pause.
    TooManyRequests,
    /// Gitea has acted, and this is the answer.
    InternalServerError,
    BrokenJson,
    Large,
}

impl Fault {
    const ALL: [Fault; 11] = [
        Fault::ConnectionRefused,
        Fault::TimeOut,
        Fault::Refusal(401),
        Fault::Refusal(403),
        Fault::Refusal(404),
        Fault::Refusal(409),
        Fault::Refusal(422),
        Fault::TooManyRequests,
        Fault::InternalServerError,
        Fault::BrokenJson,
        Fault::Large,
    ];

    fn begin(self, proxy: &Proxy) {
        let message = |status| Reply::status(status).body(r#"{"message": "the moon is in the way"}"#);
        let action = match self {
            Fault::ConnectionRefused => return proxy.stop(),
            Fault::TimeOut => Action::ForwardThenHold(Hold::new()),
            Fault::Refusal(status) => Action::Respond(message(status)),
            Fault::TooManyRequests => Action::Respond(message(429).header("retry-after", "4")),
            Fault::InternalServerError => Action::ForwardThenRespond(message(500)),
            Fault::BrokenJson => Action::ForwardThenRespond(
                Reply::ok().header("content-type", "application/json").body(r#"[{"id": 17, "login": "acme", "#),
            ),
            Fault::Large => Action::ForwardThenRespond(Reply::ok().blank(100_000_000)),
        };
        proxy.on_call(move |_| action.clone());
    }

    fn end(self, proxy: &Proxy) -> Result<()> {
        proxy.pass();
        proxy.start_again()
    }

    /// Whether Gitea has acted all the same. A create call that has acted is found by the next pass.
    fn has_acted(self) -> bool {
        matches!(self, Fault::TimeOut | Fault::InternalServerError | Fault::BrokenJson | Fault::Large)
    }

    /// Whether it is no failure of this call.
    fn is_none_of(self, call: Call) -> bool {
        // A webhook that is gone already need not be deleted, and nobody reads the page after a deletion.
        call == Call::Delete && matches!(self, Fault::Refusal(404) | Fault::BrokenJson)
    }

    /// The reasons that fit, and what the message has to have.
    fn said(self, call: Call) -> (&'static [&'static str], &'static str) {
        let (reasons, words): (&'static [&'static str], _) = match self {
            Fault::ConnectionRefused => (&["ExternalSystemFailed"], "could not be reached"),
            Fault::TimeOut => (&["ExternalSystemFailed"], "did not answer within 5s"),
            Fault::Refusal(401) => (&["CredentialsRefused"], "answered 401: the moon is in the way"),
            Fault::Refusal(403) => (&["CredentialsRefused"], "answered 403: the moon is in the way"),
            Fault::Refusal(404) => (&["ExternalSystemFailed"], "answered 404: the moon is in the way"),
            Fault::Refusal(409) => (&["ExternalSystemFailed"], "answered 409: the moon is in the way"),
            Fault::Refusal(_) => (&["ExternalSystemFailed"], "answered 422: the moon is in the way"),
            // The answer itself, or the pause that it asked for.
            Fault::TooManyRequests => (&["ExternalSystemFailed"], ""),
            Fault::InternalServerError => (&["ExternalSystemFailed"], "answered 500: the moon is in the way"),
            Fault::BrokenJson => (&["ExternalSystemFailed"], "unexpected answer (status 200)"),
            Fault::Large => (&["ExternalSystemFailed"], "sent more than 4194304 bytes"),
        };
        (if call == Call::Delete { &["DeletionFailed"] } else { reasons }, words)
    }

    /// The most calls that it may cost within this time: one at once, one more because the status was written, one for a slow
    /// machine, and those after the pauses.
    fn most_calls(self, call: Call, time: Duration) -> usize {
        let seconds = time.as_secs_f64();
        match self {
            // Refused credentials are not tried again by time, except for a deletion.
            Fault::Refusal(401 | 403) if call != Call::Delete => 3,
            // Every four seconds, and none after the status was written.
            Fault::TooManyRequests => 2 + (seconds / 4.0) as usize,
            // The first pause is a second, and doubles, with jitter down to a half: after 0.5, 1.5, 3.5, 7.5 seconds.
            _ => 3 + (seconds / 0.5 + 1.0).log2() as usize,
        }
    }
}

/// One call of one Subscription, and the fault that it meets.
struct Case<'a> {
    workspace: &'a Workspace<'a>,
    name: String,
    call: Call,
    fault: Fault,
    /// What only the call goes through.
    proxy: Proxy,
}

impl Case<'_> {
    fn new<'a>(workspace: &'a Workspace<'a>, name: &str, call: Call, fault: Fault) -> Result<Case<'a>> {
        let proxy = Proxy::start(&workspace.gitea.url())?;
        Ok(Case { workspace, name: name.to_owned(), call, fault, proxy })
    }

    async fn create(&self) -> Result<()> {
        let secret = self.call.plugin();
        self.workspace.put_secret(&secret, Some(&secret), &[("token", &self.workspace.user.token)]).await?;
        let mut object = self.workspace.subscription(&self.name);
        object["spec"]["pluginRef"]["name"] = json!(self.call.plugin());
        object["spec"]["parameters"]["faultyURL"] = json!(self.proxy.url());
        object["spec"]["authorization"]["apiKey"]["secretRef"]["name"] = json!(secret);
        self.workspace.create_subscription(object).await?;
        Ok(())
    }

    /// The webhooks in Gitea with the callback URL of this Subscription.
    async fn hooks(&self, url: &str) -> Result<usize> {
        let hooks = self.workspace.gitea.hooks(&self.workspace.user, REPOSITORY).await?;
        Ok(hooks.iter().filter(|hook| hook["config"]["url"] == url).count())
    }

    fn calls(&self) -> usize {
        self.proxy.counts().values().sum()
    }

    /// Waits until the condition tells of the fault.
    async fn is_told(&self) -> Result<()> {
        let (reasons, words) = self.fault.said(self.call);
        let api = self.workspace.api::<Subscription>();
        let host = self.proxy.url().replace("http://", "");
        eventually(PATIENCE, "the condition tells of the fault", async || {
            let conditions = api.get(&self.name).await?.status.context("no status yet")?.conditions;
            let of_call = conditions.iter().find(|condition| condition.type_ == self.call.condition());
            let condition = of_call.with_context(|| format!("not among {conditions:?}"))?;
            let reason = condition.reason.as_str();
            ensure!(condition.status == "False" && reasons.contains(&reason), "{condition:?}");
            let message = &condition.message;
            ensure!(message.contains(&format!("{}: ", self.call.name())), "it names the call: {message}");
            ensure!(message.contains(words), "it says {words:?}: {message}");
            if self.fault == Fault::TooManyRequests {
                let pause = message.contains("answered 429: the moon") || message.contains("asks for a pause until");
                ensure!(pause, "{message}");
            }
            if self.fault != Fault::BrokenJson {
                ensure!(message.contains(&host), "it names the host {host}: {message}");
            }
            eprintln!("{:?} {:?}: {message}", self.call, self.fault);
            Ok(())
        })
        .await
    }

    /// Lets the fault last, and counts the calls that it costs.
    async fn lasts(&self, began: Instant) -> Result<()> {
        tokio::time::sleep_until(began + FAULT).await;
        let calls = self.calls();
        let (time, most) = (began.elapsed(), self.fault.most_calls(self.call, began.elapsed()));
        ensure!(calls <= most, "{calls} calls in {time:?}, at most {most} are needed");
        // A refused connection is not counted.
        ensure!(calls > 0 || self.fault == Fault::ConnectionRefused, "the call was made");
        Ok(())
    }

    /// Ends the fault. Refused credentials are tried again at once if there are others.
    async fn ends(&self) -> Result<()> {
        self.fault.end(&self.proxy)?;
        if self.fault.said(self.call).0 == ["CredentialsRefused"] {
            let (secret, user) = (self.call.plugin(), &self.workspace.user);
            let token = self.workspace.gitea.create_token(&user.name, &user.password, &["all"]).await?;
            note_secret(&token)?;
            self.workspace.put_secret(&secret, Some(&secret), &[("token", &token)]).await?;
        }
        Ok(())
    }

    async fn is_ready(&self) -> Result<String> {
        self.workspace.subscription_is(&self.name, "Ready", "True", "").await?;
        callback_url(&self.workspace.api().get(&self.name).await?)
    }

    async fn delete(&self, url: &str) -> Result<()> {
        self.workspace.delete_subscription(&self.name).await?;
        self.is_gone(url).await
    }

    async fn is_gone(&self, url: &str) -> Result<()> {
        self.workspace.is_gone(&self.name).await?;
        ensure!(self.hooks(url).await? == 0, "no webhook is left");
        Ok(())
    }

    /// A fault on the way to Ready.
    async fn while_it_is_made(&self) -> Result<()> {
        let began = Instant::now();
        self.fault.begin(&self.proxy);
        self.create().await?;
        if self.call == Call::Create && self.fault.has_acted() {
            // While the fault lasts, and with the one call.
            self.is_ready().await?;
            tokio::time::sleep_until(began + FAULT).await;
            ensure!(self.calls() == 1, "{} create calls", self.calls());
        } else {
            self.is_told().await?;
            self.lasts(began).await?;
        }
        self.ends().await?;
        let url = self.is_ready().await?;
        ensure!(self.hooks(&url).await? == 1, "exactly one webhook");
        self.delete(&url).await
    }

    /// A fault of the create call, and nobody waits for its end.
    async fn deleted_meanwhile(&self) -> Result<()> {
        self.fault.begin(&self.proxy);
        self.create().await?;
        if self.fault.has_acted() {
            eventually(PATIENCE, "the call is made", async || {
                ensure!(self.calls() > 0, "not yet");
                Ok(())
            })
            .await?;
        } else {
            self.is_told().await?;
        }
        // The status may not tell the URL yet.
        let uid = self.workspace.api::<Subscription>().get(&self.name).await?.uid().context("a UID")?;
        let route = Api::<k8s_openapi::api::core::v1::Secret>::namespaced(self.workspace.client.clone(), NAMESPACE);
        let custody = route.get(&format!("custody-{uid}")).await?;
        let json = &custody.data.as_ref().and_then(|data| data.get("custody.json")).context("a custody")?.0;
        let token = serde_json::from_slice::<serde_json::Value>(json)?["token"].as_str().context("a token")?.to_owned();
        self.workspace.delete_subscription(&self.name).await?;
        self.workspace.is_gone(&self.name).await?;
        let hooks = self.workspace.gitea.hooks(&self.workspace.user, REPOSITORY).await?;
        let left = hooks.iter().filter(|hook| hook["config"]["url"].as_str().is_some_and(|url| url.ends_with(&token)));
        ensure!(left.count() == 0, "no webhook is left");
        Ok(())
    }

    /// A fault of the delete call.
    async fn while_it_is_deleted(&self) -> Result<()> {
        self.create().await?;
        let url = self.is_ready().await?;
        let began = Instant::now();
        self.fault.begin(&self.proxy);
        self.workspace.delete_subscription(&self.name).await?;
        if self.fault == Fault::Refusal(404) {
            // Gitea says so although it is there: who could know?
            return self.workspace.is_gone(&self.name).await;
        }
        if !self.fault.is_none_of(self.call) {
            self.is_told().await?;
            self.lasts(began).await?;
        }
        self.ends().await?;
        self.is_gone(&url).await
    }
}

async fn meet(fault: Fault) -> Result<()> {
    let own = impatient().await;
    let name = format!("{fault:?}").to_lowercase().replace(['(', ')'], "-");
    let workspace =
        Workspace::new(&own.control_plane, &world::shared().await.gitea, name.trim_end_matches('-')).await?;
    let cases = Call::ALL.into_iter().map(|call| (call.name().to_owned(), call, false));
    let cases: Vec<_> = cases.chain([("create-and-delete".to_owned(), Call::Create, true)]).collect();
    let outcomes = cases.iter().map(async |(name, call, impatient)| {
        let case = Case::new(&workspace, name, *call, fault)?;
        let outcome = match (call, impatient) {
            (Call::Delete, _) => case.while_it_is_deleted().await,
            (_, false) => case.while_it_is_made().await,
            (_, true) => case.deleted_meanwhile().await,
        };
        outcome.with_context(|| format!("{fault:?} at {name}"))
    });
    let outcomes = futures::future::join_all(outcomes).await;
    workspace.collect(&own.bellhop).await?;
    let failures: Vec<_> = outcomes.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

#[tokio::test]
async fn each_fault_of_each_call_ends_with_one_webhook_and_leaves_none() -> Result<()> {
    let outcomes = futures::future::join_all(Fault::ALL.map(meet)).await;
    let failures: Vec<_> = outcomes.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(failures.is_empty(), "\n{}", failures.join("\n"));
    Ok(())
}
