//! A real Gitea, on loopback unless pods have to reach it: the external system.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::browser::{Browser, Page};
use crate::build::{self, Part};
use crate::control_plane::{private_file, private_folder};
use crate::process::{self, Process};

const START_TIMEOUT: Duration = Duration::from_secs(90);
const ADMIN: &str = "site-admin";

/// A user of Gitea.
#[derive(Debug, Clone)]
pub struct User {
    /// The login name.
    pub name: String,
    /// The password, for git and the web pages.
    pub password: String,
    /// An access token with all scopes.
    pub token: String,
}

impl User {
    fn token_header(&self) -> String {
        format!("token {}", self.token)
    }
}

/// A Gitea with its own database. Dropping it ends it.
#[derive(Debug)]
pub struct Gitea {
    address: SocketAddr,
    folder: PathBuf,
    log: PathBuf,
    binary: PathBuf,
    /// The site administrator's, made by Gitea's own command line; everything else goes through the API.
    admin_password: String,
    process: Mutex<Option<Process>>,
}

impl Gitea {
    /// Starts a Gitea on a free port with its state in `dir/NAME` and its log in `dir/log`, and waits until it answers.
    pub async fn start(dir: &Path, name: &str) -> Result<Gitea> {
        Gitea::start_on(dir, name, crate::ports::free_port()?).await
    }

    /// Starts a Gitea on this port.
    pub async fn start_on(dir: &Path, name: &str, port: u16) -> Result<Gitea> {
        Gitea::start_at(dir, name, (Ipv4Addr::LOCALHOST, port).into()).await
    }

    /// Starts a Gitea on a free port with additional configuration, such as `[oauth2]` and a line for it.
    pub async fn start_with(dir: &Path, name: &str, more: &str) -> Result<Gitea> {
        Gitea::start_configured(dir, name, (Ipv4Addr::LOCALHOST, crate::ports::free_port()?).into(), more).await
    }

    /// Starts a Gitea at this address.
    pub async fn start_at(dir: &Path, name: &str, address: SocketAddr) -> Result<Gitea> {
        Gitea::start_configured(dir, name, address, "").await
    }

    async fn start_configured(dir: &Path, name: &str, address: SocketAddr, more: &str) -> Result<Gitea> {
        build::ensure_async(&[Part::Gitea]).await?;
        let folder = dir.join(name);
        private_folder(&folder)?;
        private_file(&folder.join("app.ini"), &(configuration(&folder, address)? + more))?;
        let gitea = Gitea {
            address,
            log: dir.join("log").join(format!("{name}.log")),
            binary: build::part(Part::Gitea)?,
            folder,
            admin_password: Uuid::new_v4().simple().to_string(),
            process: Mutex::new(None),
        };
        gitea.start_again().await?;
        gitea
            .admin(&[
                "user",
                "create",
                "--admin",
                "--username",
                ADMIN,
                "--email",
                "site-admin@example.com",
                "--must-change-password=false",
                "--password",
                &gitea.admin_password,
            ])
            .await?;
        Ok(gitea)
    }

    /// `http://ADDRESS:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The log file.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Ends Gitea; its data stays.
    pub async fn stop(&self) -> Result<()> {
        if let Some(mut process) = self.process.lock().await.take() {
            process.terminate(Duration::from_secs(90)).await?;
        }
        Ok(())
    }

    /// Starts a stopped Gitea on the same port and data, and waits until it answers.
    pub async fn start_again(&self) -> Result<()> {
        let mut running = self.process.lock().await;
        if running.is_some() {
            return Ok(());
        }
        let mut process = Process::spawn("gitea", &self.command(&["web"]), &self.log)?;
        let url = format!("{}/api/v1/version", self.url());
        process.wait_ready(START_TIMEOUT, async || crate::http::get_ok(&url).await.map(drop)).await?;
        *running = Some(process);
        Ok(())
    }

    /// Creates a user with an access token for everything.
    pub async fn create_user(&self, name: &str) -> Result<User> {
        let password = Uuid::new_v4().simple().to_string();
        let user = json!({
            "username": name,
            "email": format!("{name}@example.com"),
            "password": password,
            "must_change_password": false,
        });
        self.expect(201, Method::POST, "/api/v1/admin/users", &basic(ADMIN, &self.admin_password), Some(&user)).await?;
        let token = self.create_token(name, &password, &["all"]).await?;
        Ok(User { name: name.to_owned(), password, token })
    }

    /// Creates another access token of a user, with these scopes (`write:repository`, `read:user`, `all`, ...).
    pub async fn create_token(&self, name: &str, password: &str, scopes: &[&str]) -> Result<String> {
        let random = Uuid::new_v4().simple().to_string();
        let body = json!({"name": format!("token-{random}"), "scopes": scopes});
        let path = format!("/api/v1/users/{name}/tokens");
        let token = self.expect(201, Method::POST, &path, &basic(name, password), Some(&body)).await?;
        Ok(token["sha1"].as_str().context("the answer has no token")?.to_owned())
    }

    /// Registers an OAuth application of a user, to which browsers are sent back at this URL; gives its id and its secret.
    pub async fn create_oauth_application(&self, owner: &User, redirect_url: &str) -> Result<(String, String)> {
        let name = format!("bellhop-{}", Uuid::new_v4().simple());
        let body = json!({"name": name, "confidential_client": true, "redirect_uris": [redirect_url]});
        let path = "/api/v1/user/applications/oauth2";
        let made = self.expect(201, Method::POST, path, &owner.token_header(), Some(&body)).await?;
        let text =
            |key: &str| made[key].as_str().map(str::to_owned).with_context(|| format!("the answer has no {key}"));
        Ok((text("client_id")?, text("client_secret")?))
    }

    /// Goes through the login page, if the browser is not logged in yet, to the page on which a user consents, or further
    /// where the user has consented before.
    pub async fn log_in(&self, browser: &mut Browser, page: Page, user: &User) -> Result<Page> {
        let Ok(form) = page.form("/user/login") else { return Ok(page) };
        browser.submit(&form, &[("user_name", &user.name), ("password", &user.password)]).await
    }

    /// Says yes or no on the page on which a user consents.
    pub async fn consent(&self, browser: &mut Browser, page: &Page, granted: bool) -> Result<Page> {
        let form = page.form("/login/oauth/grant")?;
        browser.submit(&form, &[("granted", if granted { "true" } else { "false" })]).await
    }

    /// Takes back whatever the user has granted to OAuth applications, as on the page of the settings.
    pub async fn revoke_grants(&self, browser: &mut Browser, user: &User) -> Result<()> {
        let page = browser.open(&format!("{}/user/settings/applications", self.url())).await?;
        let page = self.log_in(browser, page, user).await?;
        let grants: Vec<_> = page
            .html
            .split('"')
            .filter(|text| text.starts_with("/user/settings/applications/oauth2/") && text.contains("/revoke/"))
            .map(str::to_owned)
            .collect();
        if grants.is_empty() {
            bail!("{} has granted nothing: {}", user.name, page.text());
        }
        for grant in grants {
            let form = browser.form(&format!("{}{grant}", self.url()), &[])?;
            browser.submit(&form, &[]).await?;
        }
        Ok(())
    }

    /// Creates a repository with a first commit on `main`.
    pub async fn create_repository(&self, owner: &User, name: &str) -> Result<Value> {
        let body = json!({"name": name, "auto_init": true, "default_branch": "main"});
        self.expect(201, Method::POST, "/api/v1/user/repos", &owner.token_header(), Some(&body)).await
    }

    /// The webhooks of a repository.
    pub async fn hooks(&self, owner: &User, repository: &str) -> Result<Vec<Value>> {
        let path = format!("/api/v1/repos/{}/{repository}/hooks?limit=50", owner.name);
        let hooks = self.expect(200, Method::GET, &path, &owner.token_header(), None).await?;
        Ok(hooks.as_array().context("not a list of hooks")?.clone())
    }

    /// Creates a webhook for these events, as a stranger to Bellhop would.
    pub async fn create_hook(
        &self,
        owner: &User,
        repository: &str,
        url: &str,
        secret: &str,
        events: &[&str],
    ) -> Result<Value> {
        let path = format!("/api/v1/repos/{}/{repository}/hooks", owner.name);
        let body = json!({
            "type": "gitea",
            "active": true,
            "events": events,
            "config": {"url": url, "content_type": "json", "secret": secret},
        });
        self.expect(201, Method::POST, &path, &owner.token_header(), Some(&body)).await
    }

    /// Deletes a webhook, as somebody would by hand.
    pub async fn delete_hook(&self, owner: &User, repository: &str, id: u64) -> Result<()> {
        let path = format!("/api/v1/repos/{}/{repository}/hooks/{id}", owner.name);
        self.expect(204, Method::DELETE, &path, &owner.token_header(), None).await?;
        Ok(())
    }

    /// Commits a new file through the API, which is a push; returns the commit's id.
    pub async fn commit_file(
        &self,
        owner: &User,
        repository: &str,
        branch: &str,
        path: &str,
        content: &str,
        message: &str,
    ) -> Result<String> {
        let url = format!("/api/v1/repos/{}/{repository}/contents/{path}", owner.name);
        let body = json!({"branch": branch, "content": STANDARD.encode(content), "message": message});
        let answer = self.expect(201, Method::POST, &url, &owner.token_header(), Some(&body)).await?;
        Ok(answer["commit"]["sha"].as_str().context("the answer has no commit")?.to_owned())
    }

    /// Where to clone from, with the user's credentials in it.
    pub fn clone_url(&self, user: &User, repository: &str) -> String {
        format!("http://{}:{}@{}/{}/{repository}.git", user.name, user.token, self.address, user.name)
    }

    /// Any call of the API as a user: `api(GET, "/api/v1/user", ...)`.
    pub async fn api(
        &self,
        method: Method,
        path: &str,
        user: &User,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value)> {
        crate::http::json(method, &format!("{}{path}", self.url()), Some(&user.token_header()), body).await
    }

    /// Runs `gitea admin ...`.
    pub async fn admin(&self, args: &[&str]) -> Result<String> {
        process::run(self.command(&[&["admin"], args].concat())).await
    }

    async fn expect(
        &self,
        expected: u16,
        method: Method,
        path: &str,
        authorization: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let url = format!("{}{path}", self.url());
        let (status, value) = crate::http::json(method.clone(), &url, Some(authorization), body).await?;
        if status.as_u16() != expected {
            bail!("Gitea: {method} {path} answered {status}, not {expected}: {value}");
        }
        Ok(value)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(args)
            .arg("--config")
            .arg(self.folder.join("app.ini"))
            .current_dir(&self.folder)
            .env("HOME", &self.folder)
            .env("GITEA_WORK_DIR", &self.folder)
            // In a container, tests usually run as root.
            .env("GITEA_I_AM_BEING_UNSAFE_RUNNING_AS_ROOT", "true");
        command
    }
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

/// Everything that is not needed is off, and what costs time (password hashing, start-up jobs) is cheap.
fn configuration(folder: &Path, address: SocketAddr) -> Result<String> {
    let static_root = build::gitea_static_root()?;
    let secret = || URL_SAFE_NO_PAD.encode([Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat());
    let (secret_key, internal_token, jwt_secret) = (secret(), secret(), secret());
    let (folder, static_root) = (fs::canonicalize(folder)?, fs::canonicalize(static_root)?);
    let (folder, static_root) = (folder.display(), static_root.display());
    let (ip, port) = (address.ip(), address.port());
    Ok(format!(
        "APP_NAME = Gitea
RUN_MODE = prod
WORK_PATH = {folder}

[server]
PROTOCOL = http
HTTP_ADDR = {ip}
HTTP_PORT = {port}
ROOT_URL = http://{address}/
STATIC_ROOT_PATH = {static_root}
DISABLE_SSH = true
LFS_START_SERVER = false
OFFLINE_MODE = true
APP_DATA_PATH = {folder}/data

[database]
DB_TYPE = sqlite3
PATH = {folder}/gitea.db
SQLITE_JOURNAL_MODE = WAL
SQLITE_TIMEOUT = 60000

[security]
INSTALL_LOCK = true
SECRET_KEY = {secret_key}
INTERNAL_TOKEN = {internal_token}
PASSWORD_HASH_ALGO = pbkdf2$1000$20

[oauth2]
JWT_SECRET = {jwt_secret}

[repository]
ROOT = {folder}/repositories
DEFAULT_BRANCH = main

[webhook]
ALLOWED_HOST_LIST = *
DELIVER_TIMEOUT = 30
QUEUE_LENGTH = 1000

[queue]
TYPE = channel

[service]
DISABLE_REGISTRATION = true
REGISTER_EMAIL_CONFIRM = false

[session]
PROVIDER = memory

[indexer]
ISSUE_INDEXER_TYPE = db
REPO_INDEXER_ENABLED = false

[actions]
ENABLED = false

[packages]
ENABLED = false

[mailer]
ENABLED = false

[picture]
DISABLE_GRAVATAR = true

[cron]
ENABLED = false

[cron.update_checker]
ENABLED = false

[log]
MODE = console
LEVEL = Info
"
    ))
}
