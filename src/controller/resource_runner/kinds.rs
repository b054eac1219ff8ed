//! Which kinds the API server knows, and under which path.

use crate::api::reason;
use crate::controller::workflow_trigger::plan::Missing;
use kube::Client;
use kube::core::GroupVersionKind;
use kube::discovery::{self, ApiResource, Scope};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long an answer counts. A definition is seldom changed.
const FRESH: Duration = Duration::from_secs(300);
/// Most kinds that are remembered; tenants can name any.
const MOST: usize = 256;

/// Asks the API server, and remembers what it said.
pub struct Kinds {
    client: Client,
    known: Mutex<HashMap<(String, String), (Instant, Kind)>>,
}

/// A kind whose objects live in namespaces.
#[derive(Clone, Debug, PartialEq)]
pub struct Kind {
    /// The API group; empty for the core one.
    pub group: String,
    /// The name in paths and roles.
    pub plural: String,
    api_version: String,
}

impl Kind {
    /// The path of its objects in a namespace.
    pub fn path(&self, namespace: &str) -> String {
        let root = if self.group.is_empty() { "api" } else { "apis" };
        format!("/{root}/{}/namespaces/{namespace}/{}", self.api_version, self.plural)
    }

    /// The name as roles and kubectl have it, such as `jobs.batch`.
    pub fn full_name(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }
}

impl Kinds {
    /// Nothing is known yet.
    pub fn new(client: Client) -> Self {
        Self { client, known: Mutex::default() }
    }

    /// The kind of this name.
    ///
    /// # Errors
    /// The API server does not know it, or its objects do not live in namespaces.
    pub async fn get(&self, api_version: &str, kind: &str) -> Result<Kind, Missing> {
        let key = (api_version.to_owned(), kind.to_owned());
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some((at, kind)) = known
            && at.elapsed() < FRESH
        {
            return Ok(kind);
        }
        let found = self.ask(api_version, kind).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, (Instant::now(), found.clone()));
        Ok(found)
    }

    async fn ask(&self, api_version: &str, kind: &str) -> Result<Kind, Missing> {
        let missing = |reason: &'static str, problem: String| {
            Err(Missing { reason, message: format!("spec.runner.resource.manifest.kind: {problem}") })
        };
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let found = discovery::pinned_kind(&self.client, &GroupVersionKind::gvk(group, version, kind)).await;
        let unknown = || format!("the cluster has no {kind} of {api_version}");
        match found {
            Ok((found, capabilities)) if capabilities.scope == Scope::Namespaced => Ok(Kind::from(found)),
            Ok(_) => {
                let problem = format!("{kind} of {api_version} lives in no namespace; only what does can be made");
                missing(reason::RUNNER_NOT_ALLOWED, problem)
            }
            Err(kube::Error::Discovery(_)) => missing(reason::RUNNER_NOT_FOUND, unknown()),
            Err(kube::Error::Api(status)) if status.is_not_found() => missing(reason::RUNNER_NOT_FOUND, unknown()),
            Err(error) => {
                let problem = format!("what {kind} of {api_version} is cannot be asked: {error}");
                missing(reason::RUNNER_NOT_FOUND, problem)
            }
        }
    }
}

impl From<ApiResource> for Kind {
    fn from(found: ApiResource) -> Self {
        Self { group: found.group, plural: found.plural, api_version: found.api_version }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_api_server() {
        let kind = |group: &str, api_version: &str, plural: &str| Kind {
            group: group.to_owned(),
            plural: plural.to_owned(),
            api_version: api_version.to_owned(),
        };
        let job = kind("batch", "batch/v1", "jobs");
        assert_eq!(job.path("team-a"), "/apis/batch/v1/namespaces/team-a/jobs");
        assert_eq!(job.full_name(), "jobs.batch");
        let pod = kind("", "v1", "pods");
        assert_eq!((pod.path("team-a").as_str(), pod.full_name().as_str()), ("/api/v1/namespaces/team-a/pods", "pods"));
    }
}
