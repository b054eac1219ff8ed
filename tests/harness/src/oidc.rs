//! A strict OAuth server on loopback: the npm package oidc-provider, with a small API behind it (`tests/cluster/oidc`).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use crate::browser::{Browser, Page};
use crate::process::Process;

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A client that is registered with the server.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its secret.
    pub secret: &'a str,
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Oidc {
    url: String,
    _process: Process,
}

impl Oidc {
    /// Starts a server with its log in `dir/log/NAME.log`. Every client may send browsers back to `redirect_url` alone;
    /// access tokens live for `life`.
    pub async fn start(
        dir: &Path,
        name: &str,
        redirect_url: &str,
        life: Duration,
        clients: &[Client<'_>],
    ) -> Result<Oidc> {
        let folder = crate::npm::install("oidc", "server.mjs").await?;
        let port = crate::ports::free_port()?;
        let clients: Vec<_> = clients.iter().map(|client| json!({"id": client.id, "secret": client.secret})).collect();
        let configuration =
            json!({"port": port, "redirectURI": redirect_url, "accessTokenLife": life.as_secs(), "clients": clients});
        let mut command = Command::new("node");
        command.arg("server.mjs").arg(configuration.to_string()).current_dir(folder);
        let mut process = Process::spawn("oidc", &command, &dir.join("log").join(format!("{name}.log")))?;
        let url = format!("http://127.0.0.1:{port}");
        let probe = format!("{url}/requests");
        process.wait_ready(START_TIMEOUT, async || crate::http::get_ok(&probe).await.map(drop)).await?;
        Ok(Oidc { url, _process: process })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How many token requests of this kind there were: a grant type, or `refused`.
    pub async fn requests(&self, kind: &str) -> Result<u64> {
        let (_, requests) = crate::http::json(Method::GET, &format!("{}/requests", self.url), None, None).await?;
        requests[kind].as_u64().with_context(|| format!("no number of {kind} in {requests}"))
    }

    /// A token request as this client, past Bellhop.
    pub async fn token(&self, client: Client<'_>, form: &[(&str, &str)]) -> Result<(u16, Value)> {
        self.ask("token", client, form).await
    }

    /// Whether the server takes this token, be it an access or a refresh token (RFC 7662).
    pub async fn is_active(&self, client: Client<'_>, token: &str) -> Result<bool> {
        let (status, answer) = self.ask("token/introspection", client, &[("token", token)]).await?;
        ensure!(status == 200, "introspection: {status} {answer}");
        answer["active"].as_bool().with_context(|| format!("introspection: {answer}"))
    }

    async fn ask(&self, path: &str, client: Client<'_>, form: &[(&str, &str)]) -> Result<(u16, Value)> {
        let mut encoder: reqwest::Url = self.url.parse()?;
        encoder.query_pairs_mut().extend_pairs(form);
        let response = crate::http::client()
            .post(format!("{}/{path}", self.url))
            .basic_auth(client.id, Some(client.secret))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(encoder.query().unwrap_or_default().to_owned())
            .send()
            .await?;
        let status = response.status().as_u16();
        Ok((status, serde_json::from_slice(&response.bytes().await?)?))
    }

    /// Goes through the login page, which takes any name, to the consent page.
    pub async fn log_in(&self, browser: &mut Browser, login: Page, name: &str) -> Result<Page> {
        let form = login.form("/interaction/")?;
        let consent = browser.submit(&form, &[("login", name), ("password", "any")]).await?;
        ensure!(consent.status == 200, "no consent page: {} {}", consent.status, consent.text());
        Ok(consent)
    }

    /// Says yes on the consent page.
    pub async fn consent(&self, browser: &mut Browser, page: &Page) -> Result<Page> {
        browser.submit(&page.form("/interaction/")?, &[]).await
    }

    /// Says no on the login or the consent page.
    pub async fn refuse(&self, browser: &mut Browser, page: &Page) -> Result<Page> {
        browser.open(&page.link("/abort")?).await
    }
}
