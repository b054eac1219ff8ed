//! What custody keeps of an authorization by OAuth: the client, an open link, a consent under way, the grant.

use crate::api::reason;
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// What is known of the authorization of one Subscription. Times are Unix milliseconds.
///
/// It is empty for the other methods. Tokens, secrets, links and states are in here and are never printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorizationRecord {
    /// Which client was chosen at acceptance; later choices do not change it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<PinnedClient>,
    /// The client's id as it was read last; a copy, for when the workspace is gone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_id: String,
    /// The client's secret as it was read last; a copy, for the same reason.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_secret: String,
    /// The link that is in the status, while a consent is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
    /// The consent that a browser has begun. There is one at a time; the last one counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<Flow>,
    /// What the external system has granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<Grant>,
    /// What went wrong last, until a consent succeeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// The last failures to get a token, until one is got.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<TokenFailure>,
    /// When a token request was begun whose outcome is not stored yet. It keeps a second one from being made beside it,
    /// which a system that detects the reuse of refresh tokens would punish.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refreshing_since: Option<i64>,
    /// When the external system last refused an access token that should have been good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doubted_at: Option<i64>,
    /// Changes whenever the pages have stored something; it is an annotation of the custody's Secret, by which the
    /// controller that works notices.
    #[serde(skip_serializing_if = "is_zero")]
    pub version: u64,
}

fn is_zero(version: &u64) -> bool {
    *version == 0
}

/// The OAuth client that was chosen at acceptance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PinnedClient {
    /// The one that the Subscription names.
    Named {
        /// Name of the Secret in the workspace.
        secret: String,
    },
    /// The workspace's default for the plugin.
    WorkspaceDefault {
        /// Name of the Secret in the workspace.
        secret: String,
    },
    /// The plugin's default, which the administrator has registered.
    PluginDefault,
}

impl PinnedClient {
    /// The client in words, such as `Secret team-a/my-client`.
    pub fn describe(&self, workspace: &str) -> String {
        match self {
            PinnedClient::Named { secret } => format!("Secret {workspace}/{secret}"),
            PinnedClient::WorkspaceDefault { secret } => {
                format!("Secret {workspace}/{secret} (the workspace's default)")
            }
            PinnedClient::PluginDefault => "the plugin's default client".to_owned(),
        }
    }
}

/// Who knows it may begin a consent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// The unguessable part.
    pub secret: String,
    /// When it stops working.
    pub expires_at: i64,
}

/// A consent that a browser has begun.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// The unguessable part of `state` (RFC 6749, section 10.12).
    pub state: String,
    /// SHA-256 of the browser's cookie, in hexadecimal: only this browser may end what it began.
    pub browser: String,
    /// The verifier of PKCE (RFC 7636), where the plugin asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pkce_verifier: Option<String>,
    /// When it is too late.
    pub expires_at: i64,
}

/// What the external system has granted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// What calls are made with.
    pub access_token: String,
    /// What gives the next access token. Left out: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// When the access token was got.
    pub obtained_at: i64,
    /// When the access token ends. Left out: the external system has not said that it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// When the next access token is to be got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_at: Option<i64>,
    /// The external system does not take the access token any more, although its time is not over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// The external system does not give another access token: only a new consent helps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

/// Why the last consent has led to nothing, or the last grant is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// What kind of problem it is.
    pub kind: ProblemKind,
    /// In words, without secrets.
    pub message: String,
}

/// What kind of problem an authorization has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProblemKind {
    /// A person, or the external system, has said no.
    ConsentRefused,
    /// The external system does not know the client, or not with this secret.
    ClientRefused,
    /// A person has consented, and the token could not be got.
    NoToken,
    /// The grant is over.
    Expired,
}

impl ProblemKind {
    /// The reason in conditions.
    pub fn reason(self) -> &'static str {
        match self {
            ProblemKind::ConsentRefused => reason::CONSENT_REFUSED,
            ProblemKind::ClientRefused => reason::CREDENTIALS_REFUSED,
            ProblemKind::NoToken => reason::EXTERNAL_SYSTEM_FAILED,
            ProblemKind::Expired => reason::AUTHORIZATION_EXPIRED,
        }
    }
}

/// Failures to get a token that another attempt may mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenFailure {
    /// The last one, in words, without secrets.
    pub message: String,
    /// How many there were in a row.
    pub attempts: u32,
    /// When it is tried again.
    pub retry_at: i64,
}

impl AuthorizationRecord {
    /// The link's URL below the public URL, such as `https://hooks.example.com/oauth/start/…`, if there is a link.
    pub fn link_url(&self, public_url: &url::Url, uid: Uuid) -> Option<String> {
        let link = self.link.as_ref()?;
        Some(format!("{}/oauth/start/{}.{}", public_url.as_str().trim_end_matches('/'), uid.simple(), link.secret))
    }

    /// The access token, whether or not it is still good; what deletion tries when nothing better is there.
    pub fn access_token(&self) -> Option<&str> {
        self.grant.as_ref().map(|grant| grant.access_token.as_str())
    }

    /// Everything in here that must not be printed.
    pub fn secrets(&self) -> Vec<&str> {
        let grant = self.grant.as_ref();
        let flow = self.flow.as_ref();
        [
            Some(self.client_secret.as_str()),
            self.link.as_ref().map(|link| link.secret.as_str()),
            flow.map(|flow| flow.state.as_str()),
            flow.and_then(|flow| flow.pkce_verifier.as_deref()),
            grant.map(|grant| grant.access_token.as_str()),
            grant.and_then(|grant| grant.refresh_token.as_deref()),
        ]
        .into_iter()
        .flatten()
        .filter(|secret| !secret.is_empty())
        .collect()
    }
}

impl fmt::Debug for AuthorizationRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationRecord")
            .field("client", &self.client)
            .field("client_id", &self.client_id)
            .field("link", &self.link)
            .field("flow", &self.flow)
            .field("grant", &self.grant)
            .field("problem", &self.problem)
            .field("failure", &self.failure)
            .field("refreshing_since", &self.refreshing_since)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("has_refresh_token", &self.refresh_token.is_some())
            .field("obtained_at", &self.obtained_at)
            .field("expires_at", &self.expires_at)
            .field("refresh_at", &self.refresh_at)
            .field("refused", &self.refused)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> AuthorizationRecord {
        AuthorizationRecord {
            client: Some(PinnedClient::Named { secret: "my-client".into() }),
            client_id: "the-client-id".into(),
            client_secret: "hunter1".into(),
            link: Some(Link { secret: "hunter2".into(), expires_at: 1 }),
            flow: Some(Flow {
                state: "hunter3".into(),
                browser: "hunter4".into(),
                pkce_verifier: Some("hunter5".into()),
                expires_at: 2,
            }),
            grant: Some(Grant {
                access_token: "hunter6".into(),
                refresh_token: Some("hunter7".into()),
                obtained_at: 3,
                expires_at: Some(4),
                refresh_at: Some(4),
                refused: true,
                ended: true,
            }),
            problem: Some(Problem { kind: ProblemKind::Expired, message: "over".into() }),
            failure: Some(TokenFailure { message: "no answer".into(), attempts: 2, retry_at: 5 }),
            refreshing_since: Some(6),
            doubted_at: Some(7),
            version: 8,
        }
    }

    #[test]
    fn a_record_survives_its_json_and_an_empty_one_is_empty() {
        let json = serde_json::to_string(&full()).unwrap();
        assert_eq!(serde_json::from_str::<AuthorizationRecord>(&json).unwrap(), full());
        // A custody that was written before there was OAuth has nothing.
        assert_eq!(serde_json::from_str::<AuthorizationRecord>("{}").unwrap(), AuthorizationRecord::default());
        assert_eq!(serde_json::to_string(&AuthorizationRecord::default()).unwrap(), "{}");
    }

    #[test]
    fn nothing_secret_is_debugged() {
        let debug = format!("{:?}", full());
        assert!(!debug.contains("hunter") && debug.contains("the-client-id"), "{debug}");
        assert_eq!(full().secrets().len(), 6);
    }

    #[test]
    fn the_link_is_below_the_public_url() {
        let uid = Uuid::from_u128(0xab);
        let url = |base: &str| full().link_url(&base.parse().unwrap(), uid).unwrap();
        let link = "/oauth/start/000000000000000000000000000000ab.hunter2";
        assert_eq!(url("https://hooks.example.com"), format!("https://hooks.example.com{link}"));
        assert_eq!(url("https://example.com/bellhop/"), format!("https://example.com/bellhop{link}"));
    }
}
