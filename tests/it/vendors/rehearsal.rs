//! Each plugin of the stories and its vendor alone, without a cluster: every call that the plugin has is made and
//! understood, and a delivery is believed. What fails here is the plugin's or the vendor's mistake; what fails in the
//! stories alone is not.

use super::plugins;
use anyhow::{Context, Result, bail, ensure};
use bellhop::api::TriggerPlugin;
use bellhop::plugin::{
    CallContext, CallbackRequest, Captured, Credentials, Found, HttpCall, HttpResponse, Page, Plugin, Secret,
    SecretSource, WebhookReading, WebhookRef,
};
use bellhop_harness::server::{Call, Reply, Server};
use bellhop_harness::vendor::{self, Standin, Vendor};
use futures::FutureExt;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use uuid::Uuid;

/// The callback URL: answers handshakes as the ingress does, and keeps all other requests.
struct Callback {
    server: Server,
    captured: Arc<Mutex<Option<Secret>>>,
    others: Arc<Mutex<Vec<Call>>>,
}

impl Callback {
    fn start(plugin: Arc<Plugin>) -> Result<Callback> {
        let (captured, others) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Vec::new())));
        let (keep, note) = (captured.clone(), others.clone());
        let server = Server::start(Arc::new(move |call| {
            let query = call.path.split_once('?').map_or("", |(_, query)| query);
            let request = CallbackRequest::new("POST", query, &call.headers, &call.body);
            let reply = match plugin.handshake(&request, &[]) {
                None => {
                    note.lock().expect("no panic").push(call);
                    Reply::status(202)
                }
                Some(reply) => {
                    if let Some(secret) = reply.secret {
                        *keep.lock().expect("no panic") = Some(secret);
                    }
                    let start = Reply::status(reply.status).body(reply.body);
                    let headers = reply.headers.iter();
                    headers
                        .fold(start, |reply, (name, value)| reply.header(name.as_str(), value.to_str().unwrap_or("")))
                }
            };
            std::future::ready(reply).boxed()
        }))?;
        Ok(Callback { server, captured, others })
    }
}

async fn carry_out(call: HttpCall) -> Result<HttpResponse> {
    let request = bellhop_harness::http::client().request(call.method, call.url).headers(call.headers);
    let response = request.body(call.body.unwrap_or_default()).send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(HttpResponse { status, headers, body: response.bytes().await? })
}

async fn find(plugin: &Plugin, context: &CallContext<'_>) -> Result<(Vec<Found>, usize)> {
    let (mut found, mut pages, mut page) = (Vec::new(), 0, Page::First);
    while let Some(call) = plugin.find_call(context, &page)? {
        let asked = call.url.clone();
        let response = carry_out(call).await?;
        pages += 1;
        found.extend(plugin.found(context, &response)?);
        match plugin.next_page(context, &asked, &page, &response)? {
            Some(next) => page = next,
            None => break,
        }
    }
    Ok((found, pages))
}

struct Rehearsal<'a> {
    name: &'a str,
    keys: &'a [(&'a str, &'a str)],
    parameters: Value,
    events: &'a [&'a str],
    /// The vendor's name of the first event.
    sent: &'a str,
    /// How many webhooks of others there are.
    foreign: usize,
    /// How many pages the list has before the Subscription's webhook is made.
    pages: usize,
}

async fn rehearse<V: Vendor>(vendor: V, what: Rehearsal<'_>) -> Result<()> {
    let resource: TriggerPlugin = serde_json::from_value(plugins::plugin(what.name)?)?;
    let name = resource.metadata.name.clone().context("a name")?;
    let plugin = Plugin::compile(&name, &resource.spec).map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?;
    let plugin = Arc::new(plugin);
    let callback = Callback::start(plugin.clone())?;
    let standin = Standin::start(vendor)?;
    let desk = standin.desk();
    desk.add_foreign(what.foreign);

    let mut parameters: Map<String, Value> = what.parameters.as_object().cloned().unwrap_or_default();
    parameters.insert("baseURL".to_owned(), json!(standin.url()));
    plugin.check_parameters(&parameters).map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?;
    let secrets = |keys: &[(&str, &str)]| match keys {
        [("accessToken", token)] => {
            Credentials::AccessToken { token: Secret::from(*token), client_secret: Secret::from("") }
        }
        _ => Credentials::ApiKey(
            keys.iter().map(|(key, value)| ((*key).to_owned(), Secret::from((*value).to_owned()))).collect(),
        ),
    };
    let credentials = secrets(what.keys);
    let events: Vec<String> = what.events.iter().map(|event| (*event).to_owned()).collect();
    let url = callback.server.url() + "/hooks/0123456789abcdef";
    // There is none yet if the vendor chooses it.
    let external = plugin.secret_source() == SecretSource::External;
    let generated = if external { "" } else { "generated-secret-of-43-characters-in-base64" };
    let generated = Secret::from(generated.to_owned());
    let mut secret = generated.clone();
    let nothing = BTreeMap::new();
    let context = CallContext {
        parameters: &parameters,
        credentials: &credentials,
        callback_url: &url,
        callback_name: "bellhop-0123456789abcdef",
        callback_secret: &generated,
        events: &events,
        event: plugin.per_event().then_some(what.events[0]),
        setup: &nothing,
        webhook: None,
        attempt: Some(Uuid::new_v4()),
        now: bellhop_harness::vendor::now(),
    };

    // Wrong credentials are refused, and the right ones have an account.
    let wrong: Vec<(&str, &str)> = what.keys.iter().map(|(key, _)| (*key, "wrong-key-6a0e")).collect();
    let wrong = secrets(&wrong);
    let call = plugin.verify_call(&CallContext { credentials: &wrong, ..context })?.context("verify")?;
    ensure!(plugin.account(&carry_out(call).await?).is_err(), "wrong credentials were accepted");
    let call = plugin.verify_call(&context)?.context("verify")?;
    ensure!(plugin.account(&carry_out(call).await?)?.is_none_or(|account| !account.is_empty()));

    let mut setup = BTreeMap::new();
    for step in 0..plugin.before_count() {
        let response = carry_out(plugin.before_call(step, &context)?).await?;
        setup.extend(plugin.captured_before(step, &response)?);
    }
    let context = CallContext { setup: &setup, ..context };
    if plugin.can_find() {
        let (found, pages) = find(&plugin, &context).await?;
        ensure!(found.is_empty() && pages == what.pages, "{found:?} on {pages} pages");
    }
    let response = carry_out(plugin.create_call(&context)?).await?;
    let words = String::from_utf8_lossy(&response.body).into_owned();
    let Captured { id, secret: told, expires_at, values } =
        plugin.created(&context, &response).with_context(|| format!("{}: {words}", response.status))?;
    ensure!(desk.webhooks().len() == 1 && desk.webhooks()[0].url == url, "{:?}", desk.webhooks());
    ensure!(expires_at == desk.webhooks()[0].expires_at, "{expires_at:?}, {:?}", desk.webhooks());
    let webhook = WebhookRef { id: id.clone(), values };
    let context = CallContext { webhook: Some(&webhook), ..context };
    if let Some(told) = told.or(callback.captured.lock().expect("no panic").take()) {
        secret = told;
    }
    for step in 0..plugin.after_count() {
        let response = carry_out(plugin.after_call(step, &context)?).await?;
        if let Some(told) = plugin.captured_after(step, &response)?.secret {
            secret = told;
        }
    }

    // It is found again, by its URL or name, as it was made.
    if plugin.can_find() {
        let (found, _) = find(&plugin, &context).await?;
        ensure!(found.len() == 1 && found[0].id == id && found[0].healthy, "{found:?} instead of {id}");
        ensure!(found[0].expires_at == expires_at, "{found:?} instead of {expires_at:?}");
    }
    if let Some(call) = plugin.read_call(&context)? {
        ensure!(plugin.reading(&context, &carry_out(call).await?)? == WebhookReading::Healthy);
    }
    if let Some(call) = plugin.refresh_call(&context)? {
        let prolonged = plugin.refreshed(&carry_out(call).await?)?;
        ensure!(prolonged >= expires_at && prolonged == desk.webhooks()[0].expires_at, "{prolonged:?}");
    }
    if !external {
        if let Some(call) = plugin.update_call(&context)? {
            plugin.updated(&carry_out(call).await?)?;
        }
        let made = desk.webhooks();
        ensure!(made[0].secret == secret.expose_str().unwrap_or(""), "{made:?}");
    }

    // A delivery is believed, and is the event that it should be.
    standin.send(what.sent).await?;
    let calls = std::mem::take(&mut *callback.others.lock().expect("no panic"));
    let requests = calls.iter().map(|call| CallbackRequest::new("POST", "", &call.headers, &call.body));
    let names = |request: &CallbackRequest<'_>| -> Result<Vec<String>> {
        let reading = plugin.read(request).map_err(|bad| anyhow::anyhow!("{bad}"))?;
        Ok(plugin.events(&reading)?.into_iter().map(|event| event.name).collect::<Result<_, _>>()?)
    };
    // Some vendors say hello first, at about the time of their answer.
    let mut told = requests.map(|request| names(&request).map(|names| (request, names))).collect::<Result<Vec<_>>>()?;
    told.retain(|(_, names)| *names == [what.events[0]]);
    let [(request, _)] = told.as_slice() else { bail!("{} requests are the event", told.len()) };
    let request = request.at(vendor::now()).registered(Some(&url));
    plugin.verify(&request, &[secret]).map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    let other = Secret::from("another".to_owned());
    ensure!(plugin.verify(&request, &[other]).is_err(), "any secret is believed");
    plugin.delivery_id(&request)?;

    // It is deleted, and deleting it again is no failure.
    let call = plugin.delete_call(&context)?.context("delete")?;
    plugin.deleted(&carry_out(call.clone()).await?)?;
    ensure!(desk.webhooks().is_empty(), "{:?}", desk.webhooks());
    let again = carry_out(call).await?;
    ensure!(matches!(again.status, 404 | 410) || plugin.deleted(&again).is_ok(), "{again:?}");
    ensure!(desk.all().len() == what.foreign);
    Ok(())
}

macro_rules! rehearsals {
    ($($test:ident: $vendor:expr, $name:literal, $keys:expr, $parameters:tt, $events:expr, $sent:literal, $foreign:literal, $pages:literal;)*) => {
        $(
            #[tokio::test]
            async fn $test() -> Result<()> {
                let what = Rehearsal {
                    name: $name, keys: &$keys, parameters: json!($parameters), events: &$events, sent: $sent,
                    foreign: $foreign, pages: $pages,
                };
                rehearse($vendor, what).await
            }
        )*
    };
}

const LIFE: Duration = Duration::from_secs(60);

rehearsals! {
    github: vendor::github::GitHub, "github", [("token", vendor::github::TOKEN)],
        {"owner": "acme", "repository": "web"}, ["push", "issues"], "push", 5, 3;
    bitbucket: vendor::bitbucket::Bitbucket, "bitbucket", [("token", vendor::bitbucket::TOKEN)],
        {"workspace": "acme", "repository": "web"}, ["repo:push"], "repo:push", 5, 3;
    linear: vendor::linear::Linear::default(), "linear", [("key", vendor::linear::KEY)],
        {}, ["Issue", "Comment"], "Issue", 5, 3;
    stripe: vendor::stripe::Stripe, "stripe", [("key", vendor::stripe::KEY)],
        {}, ["charge.succeeded", "charge.failed"], "charge.succeeded", 5, 3;
    mailgun: vendor::mailgun::Mailgun, "mailgun", [("key", vendor::mailgun::KEY)],
        {"domain": "mail.acme.example"}, ["delivered"], "delivered", 0, 1;
    gitlab: vendor::gitlab::GitLab, "gitlab", [("token", vendor::gitlab::TOKEN)],
        {"project": "acme/web"}, ["issue", "merge_request"], "issue", 3, 1;
    telegram: vendor::telegram::Telegram, "telegram", [("token", vendor::telegram::TOKEN)],
        {}, ["message", "callback_query"], "message", 0, 0;
    typeform: vendor::typeform::Typeform, "typeform", [("token", vendor::typeform::TOKEN)],
        {"form": "feedback"}, ["form_response"], "form_response", 2, 1;
    calendly: vendor::calendly::Calendly, "calendly", [("token", vendor::calendly::TOKEN)],
        {}, ["invitee.created"], "invitee.created", 5, 3;
    zendesk: vendor::zendesk::Zendesk, "zendesk", [("email", "bot@acme.example"), ("token", vendor::zendesk::TOKEN)],
        {}, ["zen:event-type:ticket.created"], "zen:event-type:ticket.created", 2, 1;
    asana: vendor::asana::Asana, "asana", [("token", vendor::asana::TOKEN)],
        {"workspace": "4242", "resource": "8675309"}, ["task.added", "task.changed"], "task.added", 2, 1;
    microsoft_graph: vendor::microsoft_graph::MicrosoftGraph::new(LIFE), "microsoft-graph",
        [("accessToken", vendor::microsoft_graph::TOKEN)], {"tenant": "common", "resource": "me/messages"}, ["created"],
        "created", 0, 1;
    shopify: vendor::shopify::Shopify, "shopify",
        [("token", vendor::shopify::TOKEN), ("clientSecret", vendor::shopify::APP_SECRET)], {"shop": "acme"},
        ["orders/create"], "ORDERS_CREATE", 0, 1;
    twilio: vendor::twilio::Twilio, "twilio",
        [("accountSID", vendor::twilio::ACCOUNT), ("authToken", vendor::twilio::TOKEN)],
        {"phoneNumber": vendor::twilio::NUMBER}, ["message.received", "call.status"], "message.received", 0, 0;
    pagerduty: vendor::pagerduty::PagerDuty, "pagerduty", [("key", vendor::pagerduty::KEY)],
        {"service": "P393ZNQ"}, ["incident.triggered", "incident.resolved"], "incident.triggered", 3, 1;
    airtable: vendor::airtable::Airtable { life: LIFE }, "airtable", [("token", vendor::airtable::TOKEN)],
        {"base": "appAcme"}, ["tableData"], "tableData", 2, 1;
    webflow: vendor::webflow::Webflow, "webflow", [("token", vendor::webflow::TOKEN)],
        {"site": "acme"}, ["form_submission"], "form_submission", 2, 1;
    gmail: vendor::gmail::Gmail { life: LIFE }, "gmail", [("token", vendor::gmail::TOKEN)],
        {}, ["mailboxChanged"], "mailboxChanged", 0, 0;
    google_calendar: vendor::google_calendar::GoogleCalendar { life: LIFE }, "google-calendar",
        [("token", vendor::google_calendar::TOKEN)], {"calendar": "primary"}, ["exists"], "exists", 0, 0;
    harbor: vendor::harbor::Harbor, "harbor", [("user", vendor::harbor::USER), ("password", vendor::harbor::PASSWORD)],
        {"project": "web"}, ["PUSH_ARTIFACT"], "PUSH_ARTIFACT", 5, 3;
}
