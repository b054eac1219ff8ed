//! Who may do what: the cluster's own authorization decides, by a SubjectAccessReview for each question. Nothing is granted
//! that it does not grant, and nothing while it cannot be asked.

use super::front_proxy::User;
use super::status::Refusal;
use super::{CAPTURES, GROUP, RESOURCE, SUBSCRIPTIONS, VERSION};
use futures::future::BoxFuture;
use http::StatusCode;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long an answer is believed. A Role that is taken away has an effect after this time at the latest.
const BELIEVED: Duration = Duration::from_secs(10);
/// Most answers that are remembered.
const MAX_REMEMBERED: usize = 1024;
/// How long the API server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What somebody wants to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wish {
    /// `get`, `list`, `watch` or `create`.
    pub verb: &'static str,
    /// With what.
    pub resource: Resource,
    /// `replay` or `send`, or nothing.
    pub subresource: &'static str,
    /// In which namespace; all, if it is empty.
    pub namespace: String,
    /// With which of them; any, if it is empty.
    pub name: String,
}

/// A resource of the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Requests.
    #[default]
    Requests,
    /// What drafts capture.
    Captures,
    /// Subscriptions: only what they have below them.
    Subscriptions,
}

impl Resource {
    /// Its name in paths and Roles.
    pub fn name(self) -> &'static str {
        match self {
            Resource::Requests => RESOURCE,
            Resource::Captures => CAPTURES,
            Resource::Subscriptions => SUBSCRIPTIONS,
        }
    }
}

/// Asks the API server whether it is allowed; what is wrong, if it cannot be asked.
pub type Review = Arc<dyn Fn(SubjectAccessReviewSpec) -> BoxFuture<'static, Result<bool, String>> + Send + Sync>;

/// Asks this API server.
pub fn review_by(client: kube::Client) -> Review {
    Arc::new(move |spec| {
        let api = Api::<SubjectAccessReview>::all(client.clone());
        Box::pin(async move {
            let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
            let answer = api.create(&PostParams::default(), &review).await.map_err(|error| error.to_string())?;
            let status = answer.status.unwrap_or_default();
            Ok(status.allowed && !status.denied.unwrap_or(false))
        })
    })
}

/// Answers for a while by what it was told before.
pub struct Access {
    review: Review,
    believed: Duration,
    patience: Duration,
    remembered: Mutex<HashMap<(User, Wish), (bool, Instant)>>,
}

impl Access {
    /// Asks by `review`.
    pub fn new(review: Review) -> Self {
        Self { review, believed: BELIEVED, patience: PATIENCE, remembered: Mutex::default() }
    }

    /// Lets through what is allowed.
    ///
    /// # Errors
    /// 403 if it is not, 503 if that cannot be found out now.
    pub async fn check(&self, user: &User, wish: Wish) -> Result<(), Refusal> {
        let key = (user.clone(), wish);
        let known = self.remembered().get(&key).copied().filter(|(_, at)| at.elapsed() < self.believed);
        let allowed = match known {
            Some((allowed, _)) => allowed,
            None => {
                let answer = tokio::time::timeout(self.patience, (self.review)(question(user, &key.1))).await;
                let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {:?}", self.patience)));
                let allowed = answer.map_err(|why| {
                    tracing::warn!(error = why, "whether somebody may read the request log cannot be found out");
                    Refusal::unavailable(
                        "whether you may do this cannot be found out now: the API server does not answer",
                    )
                })?;
                self.remember(key.clone(), allowed);
                allowed
            }
        };
        if allowed { Ok(()) } else { Err(forbidden(user, &key.1)) }
    }

    fn remember(&self, key: (User, Wish), allowed: bool) {
        let mut remembered = self.remembered();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.retain(|_, (_, at)| at.elapsed() < self.believed);
        }
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(key, (allowed, Instant::now()));
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<(User, Wish), (bool, Instant)>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn question(user: &User, wish: &Wish) -> SubjectAccessReviewSpec {
    let said = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    SubjectAccessReviewSpec {
        user: Some(user.name.clone()),
        uid: said(&user.uid),
        groups: Some(user.groups.iter().cloned().collect()),
        extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
        resource_attributes: Some(ResourceAttributes {
            group: Some(GROUP.to_owned()),
            version: Some(VERSION.to_owned()),
            resource: Some(wish.resource.name().to_owned()),
            subresource: said(wish.subresource),
            verb: Some(wish.verb.to_owned()),
            namespace: said(&wish.namespace),
            name: said(&wish.name),
            ..ResourceAttributes::default()
        }),
        non_resource_attributes: None,
    }
}

/// In the words that the API server has for it.
fn forbidden(user: &User, wish: &Wish) -> Refusal {
    let kind = wish.resource.name();
    let resource = match wish.subresource {
        "" => kind.to_owned(),
        subresource => format!("{kind}/{subresource}"),
    };
    let object = if wish.name.is_empty() { String::new() } else { format!(" \"{}\"", wish.name) };
    let place = match wish.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace \"{namespace}\""),
    };
    let refusal = Refusal::new(
        StatusCode::FORBIDDEN,
        format!(
            "{kind}.{GROUP}{object} is forbidden: User \"{}\" cannot {} resource \"{resource}\" in API group \
             \"{GROUP}\" {place}",
            user.name, wish.verb
        ),
    );
    if wish.name.is_empty() { refusal } else { refusal.about(&wish.name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn jane() -> User {
        User { name: "jane".to_owned(), groups: ["team".to_owned()].into(), ..User::default() }
    }

    fn get(namespace: &str) -> Wish {
        Wish { verb: "get", namespace: namespace.to_owned(), name: "0-a".to_owned(), ..Wish::default() }
    }

    /// Allows what is asked about the namespace `a`, and counts.
    fn counting() -> (Access, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let review: Review = Arc::new(move |spec| {
            count.fetch_add(1, Ordering::Relaxed);
            let allowed = spec.resource_attributes.unwrap().namespace.as_deref() == Some("a");
            Box::pin(async move { Ok(allowed) })
        });
        (Access::new(review), asked)
    }

    #[tokio::test]
    async fn an_answer_is_believed_for_a_while() {
        let (mut access, asked) = counting();
        for _ in 0..3 {
            access.check(&jane(), get("a")).await.unwrap();
            assert_eq!(access.check(&jane(), get("b")).await.unwrap_err().code(), StatusCode::FORBIDDEN);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        // Who else, what else.
        let _ = access.check(&User { groups: ["other".to_owned()].into(), ..jane() }, get("a")).await;
        let _ = access.check(&jane(), Wish { subresource: "replay", ..get("a") }).await;
        assert_eq!(asked.load(Ordering::Relaxed), 4);
        access.believed = Duration::ZERO;
        access.check(&jane(), get("a")).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 5);
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let (access, _) = counting();
        for number in 0..3 * MAX_REMEMBERED {
            let _ = access.check(&jane(), get(&number.to_string())).await;
        }
        assert!(access.remembered().len() <= MAX_REMEMBERED);
    }

    #[tokio::test]
    async fn nothing_is_allowed_while_nobody_can_be_asked() {
        for answer in [Some("no connection"), None] {
            let review: Review = Arc::new(move |_| match answer {
                Some(why) => Box::pin(async move { Err(why.to_owned()) }),
                None => Box::pin(std::future::pending()),
            });
            let access = Access { patience: Duration::from_millis(20), ..Access::new(review) };
            let refusal = access.check(&jane(), get("a")).await.unwrap_err();
            assert_eq!(refusal.code(), StatusCode::SERVICE_UNAVAILABLE);
        }
    }

    #[test]
    fn the_question_has_all_that_is_known() {
        let user = User { extra: [("k".to_owned(), vec!["v".to_owned()])].into(), uid: "1".to_owned(), ..jane() };
        let wish = Wish { verb: "create", subresource: "replay", ..get("a") };
        let spec = question(&user, &wish);
        let attributes = spec.resource_attributes.unwrap();
        assert_eq!((spec.user.as_deref(), spec.uid.as_deref()), (Some("jane"), Some("1")));
        assert_eq!((spec.groups, spec.extra), (Some(vec!["team".to_owned()]), Some(user.extra.clone())));
        assert_eq!(attributes.group.as_deref(), Some("log.bellhop.dev"));
        assert_eq!(
            (attributes.resource.as_deref(), attributes.subresource.as_deref()),
            (Some("requests"), Some("replay"))
        );
        assert_eq!((attributes.namespace.as_deref(), attributes.name.as_deref()), (Some("a"), Some("0-a")));
        let message = forbidden(&user, &wish).message().to_owned();
        let expected = "requests.log.bellhop.dev \"0-a\" is forbidden: User \"jane\" cannot create resource \
                        \"requests/replay\" in API group \"log.bellhop.dev\" in the namespace \"a\"";
        assert_eq!(message, expected);
    }
}
