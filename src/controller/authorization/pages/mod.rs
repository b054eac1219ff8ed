//! The pages of an authorization: a link is opened and a person continues to the external system (`/oauth/start/…`), which
//! sends the browser back (`/oauth/callback`).
//!
//! They need custody and nothing of the controller that works, so every replica serves them. What they store there changes
//! the custody's Secret, which wakes the Subscription's pass.

mod browser;
mod callback;
mod html;
mod limit;
mod start;
#[cfg(test)]
mod tests;

use super::Clients;
use crate::api::TriggerPlugin;
use crate::controller::custody::{Custody, Vault};
use crate::controller::{Compiler, Failure};
use crate::external;
use crate::plugin::Plugin;
use crate::telemetry::Metrics;
use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use html::{Content, page};
use http::{HeaderMap, StatusCode};
use kube::Api;
use limit::Limit;
use std::sync::Arc;
use std::time::Instant;
use url::Url;

/// What the pages work with.
pub struct Pages {
    client: kube::Client,
    vault: Vault,
    clients: Clients,
    compiler: Compiler,
    external: external::Client,
    public_url: Url,
    metrics: Metrics,
    limit: Limit,
}

impl Pages {
    /// `namespace` is Bellhop's own, `public_url` is where browsers reach the pages; token requests are counted in
    /// `metrics`.
    pub fn new(
        client: kube::Client,
        namespace: &str,
        external: external::Client,
        public_url: Url,
        metrics: Metrics,
    ) -> Self {
        Self {
            vault: Vault::new(client.clone(), namespace),
            clients: Clients::new(client.clone(), namespace),
            compiler: Compiler::default(),
            client,
            external,
            public_url,
            metrics,
            limit: Limit::default(),
        }
    }

    /// The plugin of a custody, as it is now.
    async fn plugin(&self, custody: &Custody) -> Result<(TriggerPlugin, Arc<Plugin>), Refusal> {
        let name = &custody.accepted.plugin_ref.name;
        let resource = Api::<TriggerPlugin>::all(self.client.clone()).get_opt(name).await.map_err(Failure::from)?;
        let compiled = resource.and_then(|resource| Some((self.compiler.compile(&resource).ok()?, resource)));
        match compiled {
            Some((plugin, resource)) if plugin.oauth2().is_some() => Ok((resource, plugin)),
            _ => Err(Refusal::new(
                StatusCode::CONFLICT,
                "The plugin cannot be used now",
                &format!(
                    "The TriggerPlugin \"{name}\" is not there, has mistakes, or does no OAuth. Ask the administrator of \
                     Bellhop, then open the link again."
                ),
            )),
        }
    }
}

/// The routes of the pages.
pub fn router(pages: Arc<Pages>) -> Router {
    let (show, begin, end, limit) = (pages.clone(), pages.clone(), pages.clone(), pages);
    let limited = move |request: Request, next: Next| {
        let allowed = limit.limit.take(Instant::now());
        async move { if allowed { next.run(request).await } else { Refusal::busy().into_page() } }
    };
    let show = async move |link: Link, headers: HeaderMap| start::show(&show, &text(link), &headers).await;
    let begin = async move |link: Link, headers: HeaderMap| start::begin(&begin, &text(link), &headers).await;
    let end = async move |RawQuery(query): RawQuery, headers: HeaderMap| {
        callback::end(&end, query.as_deref().unwrap_or_default(), &headers).await
    };
    Router::new()
        .route("/oauth/start/{link}", get(show).post(begin))
        .route("/oauth/callback", get(end))
        .fallback(async || Refusal::unknown_link().into_page())
        .layer(middleware::from_fn(limited))
}

type Link = Result<Path<String>, PathRejection>;

/// A segment that is not even text is no link.
fn text(link: Link) -> String {
    link.map(|Path(link)| link).unwrap_or_default()
}

/// Why a page does not do what it is for, for the person who sees it.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    title: String,
    text: String,
    /// Where it may be tried again.
    link: Option<String>,
}

impl Refusal {
    fn new(status: StatusCode, title: &str, text: &str) -> Self {
        Self { status, title: title.to_owned(), text: text.to_owned(), link: None }
    }

    fn unknown_link() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "This link does not work",
            "It was used already, is older than a day, was replaced by a newer one, or its Subscription is gone. The link \
             that works now is in the status of the Subscription, as long as a consent is needed:",
        )
    }

    fn busy() -> Self {
        let text = "More pages are asked for than can be made. Nothing has happened; try again in a minute.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Bellhop cannot do this now", text)
    }

    fn into_page(self) -> Response {
        let mut content = Content::default().paragraph(&self.text);
        if self.status == StatusCode::NOT_FOUND {
            content = content.command("kubectl get subscriptions.bellhop.dev --all-namespaces -o wide");
        }
        if let Some(link) = &self.link {
            content = content.link(link, "Try again");
        }
        page(self.status, &self.title, content)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Blocked(blocked) => {
                Self::new(StatusCode::CONFLICT, "The OAuth client cannot be used now", &blocked.message)
            }
            failure => {
                tracing::warn!(error = %failure, "a page of an authorization cannot be served");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "Bellhop cannot do this now",
                    "Its own data cannot be read or written at the moment. Nothing has happened; try again in a minute.",
                )
            }
        }
    }
}

fn subscription(custody: &Custody) -> String {
    format!("{}/{}", custody.namespace, custody.name)
}
