//! What is asked: a method, a path and a query, as values.

use super::access::{Resource, Wish};
use super::page::Place;
use super::selector::Selector;
use super::status::Refusal;
use super::table::Include;
use super::{CAPTURES, GROUP, RESOURCE, SUBSCRIPTIONS, VERSION};
use crate::log::model::{can_be_a_name, split_name};
use http::{Method, StatusCode};
use std::time::Duration;
use url::form_urlencoded;
use uuid::Uuid;

/// Most requests in one list, and how many, if nobody says.
pub const MAX_LIMIT: usize = 500;
/// The longest life of a watch, and how long it lives, if nobody says.
pub const MAX_WATCH: Duration = Duration::from_secs(3600);

/// What is asked for.
#[derive(Debug, PartialEq)]
pub enum Question {
    /// `/apis`: which groups there are.
    Groups,
    /// `/apis/<group>`.
    Group,
    /// `/apis/<group>/<version>`: which kinds there are.
    Resources,
    /// `/openapi/v2`.
    OpenApi2,
    /// `/openapi/v3`: which documents there are.
    OpenApi3,
    /// `/openapi/v3/apis/<group>/<version>`.
    OpenApi3Group,
    /// Requests, newest first.
    List(Where, Page, Include),
    /// Requests as they come and change.
    Watch(Where, Watch, Include),
    /// One request.
    Get(One, Include),
    /// What a draft captures, which listens as long as this lasts.
    Listen(Ear),
    /// Deliver it again.
    Replay(One),
    /// Send a request that a person makes up.
    Send(Target),
}

/// Which requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Where {
    /// In this namespace, or in all.
    pub namespace: Option<String>,
    /// Of those, the ones with these fields.
    pub selector: Selector,
}

/// Which part of a list.
#[derive(Debug, PartialEq)]
pub struct Page {
    /// Most requests.
    pub limit: usize,
    /// Where it goes on; nothing: it begins.
    pub place: Option<Place>,
}

/// Which changes.
#[derive(Debug, PartialEq)]
pub struct Watch {
    /// The resource version after which they begin; nothing: with all that there is.
    pub since: Option<String>,
    /// How long.
    pub life: Duration,
}

/// Which request.
#[derive(Debug, PartialEq)]
pub struct One {
    /// Its namespace.
    pub namespace: String,
    /// Its name, `<replica>-<uuid>`.
    pub name: String,
}

/// Which draft listens.
#[derive(Debug, PartialEq)]
pub struct Ear {
    /// Its namespace.
    pub namespace: String,
    /// The name of the WorkflowTrigger.
    pub trigger: String,
    /// How long.
    pub life: Duration,
}

/// To which Subscription.
#[derive(Debug, PartialEq)]
pub struct Target {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Question {
    /// What it takes to be answered; nothing: to be a user.
    pub fn wish(&self) -> Option<Wish> {
        let several = |verb, place: &Where| Wish {
            verb,
            namespace: place.namespace.clone().unwrap_or_default(),
            // As the API server has it: a Role for one name allows a list of that name.
            name: place.selector.value("metadata.name").unwrap_or_default().to_owned(),
            ..Wish::default()
        };
        let single = |verb, subresource, one: &One| Wish {
            verb,
            subresource,
            namespace: one.namespace.clone(),
            name: one.name.clone(),
            ..Wish::default()
        };
        match self {
            Question::List(place, ..) => Some(several("list", place)),
            Question::Watch(place, ..) => Some(several("watch", place)),
            Question::Get(one, _) => Some(single("get", "", one)),
            Question::Replay(one) => Some(single("create", "replay", one)),
            Question::Listen(ear) => Some(Wish {
                verb: "watch",
                resource: Resource::Captures,
                namespace: ear.namespace.clone(),
                name: ear.trigger.clone(),
                ..Wish::default()
            }),
            Question::Send(target) => Some(Wish {
                verb: "create",
                resource: Resource::Subscriptions,
                subresource: "send",
                namespace: target.namespace.clone(),
                name: target.name.clone(),
            }),
            _ => None,
        }
    }

    /// Reads a question.
    ///
    /// # Errors
    /// 404: nothing is there. 405: this cannot be done with it. 400: a parameter is wrong; the message names it.
    pub fn parse(method: &Method, path: &str, query: &str) -> Result<Self, Refusal> {
        let parts: Vec<String> =
            path.split('/').skip(1).map(decoded).collect::<Option<_>>().ok_or_else(nothing_here)?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let question = match parts.as_slice() {
            ["apis"] => Question::Groups,
            ["apis", GROUP] => Question::Group,
            ["apis", GROUP, VERSION] => Question::Resources,
            ["openapi", "v2"] => Question::OpenApi2,
            ["openapi", "v3"] => Question::OpenApi3,
            ["openapi", "v3", "apis", GROUP, VERSION] => Question::OpenApi3Group,
            ["apis", GROUP, VERSION, RESOURCE] => several(None, query)?,
            ["apis", GROUP, VERSION, "namespaces", namespace, RESOURCE] => several(Some(*namespace), query)?,
            ["apis", GROUP, VERSION, "namespaces", namespace, RESOURCE, name] => {
                Question::Get(one(namespace, name)?, Options::parse(query)?.include)
            }
            ["apis", GROUP, VERSION, "namespaces", namespace, RESOURCE, name, "replay"] => {
                if Options::parse(query)?.dry_run {
                    return Err(Refusal::bad_request("dryRun: a replay cannot be tried without being done"));
                }
                Question::Replay(one(namespace, name)?)
            }
            ["apis", GROUP, VERSION, "namespaces", namespace, CAPTURES] => listening(namespace, query)?,
            ["apis", GROUP, VERSION, "namespaces", namespace, SUBSCRIPTIONS, name, "send"] => {
                if Options::parse(query)?.dry_run {
                    return Err(Refusal::bad_request("dryRun: nothing can be sent without being sent"));
                }
                Question::Send(Target { namespace: checked(namespace)?, name: named(name)? })
            }
            _ => return Err(nothing_here()),
        };
        let does = matches!(question, Question::Replay(_) | Question::Send(_));
        let expected = if does { Method::POST } else { Method::GET };
        match *method == expected {
            true => Ok(question),
            false => Err(Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                format!(
                    "{method} cannot be done here: the request log is read by GET, and replay and send are done by POST"
                ),
            )),
        }
    }
}

fn nothing_here() -> Refusal {
    let there = format!("/apis/{GROUP}/{VERSION}/namespaces/<namespace>/{RESOURCE}");
    Refusal::new(StatusCode::NOT_FOUND, format!("there is nothing at this path; requests are at {there}"))
}

fn decoded(part: &str) -> Option<String> {
    Some(percent_encoding::percent_decode_str(part).decode_utf8().ok()?.into_owned())
}

/// The replica and the id in the name of a request.
///
/// # Errors
/// 404: it cannot be one.
pub fn parse_name(name: &str) -> Result<(&str, Uuid), Refusal> {
    split_name(name).ok_or_else(|| {
        let name: String = name.chars().take(100).collect();
        Refusal::not_found(&name, "names of requests are like 0-67e55044-10b1-426f-9247-bb680e5fe0c8")
    })
}

fn one(namespace: &str, name: &str) -> Result<One, Refusal> {
    // Before anybody is asked about it, and keeps it.
    parse_name(name)?;
    Ok(One { namespace: checked(namespace)?, name: name.to_owned() })
}

/// What can be the name of a namespace: nothing else is asked for anywhere.
fn checked(namespace: &str) -> Result<String, Refusal> {
    let plain = namespace.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    match plain && !namespace.starts_with('-') && (1..=63).contains(&namespace.len()) {
        true => Ok(namespace.to_owned()),
        false => Err(Refusal::bad_request(format!("{namespace:?} is not the name of a namespace"))),
    }
}

fn named(name: &str) -> Result<String, Refusal> {
    match can_be_a_name(name) {
        true => Ok(name.to_owned()),
        false => Err(Refusal::bad_request("this is not the name of an object")),
    }
}

fn listening(namespace: &str, query: &str) -> Result<Question, Refusal> {
    let options = Options::parse(query)?;
    let trigger = options.selector.value("metadata.name").filter(|_| options.watch);
    let trigger = trigger.ok_or_else(|| {
        Refusal::bad_request(format!(
            "{CAPTURES} are followed, of one draft: watch=true and fieldSelector=metadata.name=<WorkflowTrigger>"
        ))
    })?;
    Ok(Question::Listen(Ear { namespace: checked(namespace)?, trigger: named(trigger)?, life: options.life }))
}

fn several(namespace: Option<&str>, query: &str) -> Result<Question, Refusal> {
    let options = Options::parse(query)?;
    let place = Where { namespace: namespace.map(checked).transpose()?, selector: options.selector };
    if !options.watch {
        let page = Page { limit: options.limit, place: options.place };
        return Ok(Question::List(place, page, options.include));
    }
    let watch = Watch { since: options.since, life: options.life };
    Ok(Question::Watch(place, watch, options.include))
}

/// The parameters of a query.
struct Options {
    selector: Selector,
    limit: usize,
    place: Option<Place>,
    watch: bool,
    since: Option<String>,
    life: Duration,
    include: Include,
    dry_run: bool,
}

impl Options {
    fn parse(query: &str) -> Result<Self, Refusal> {
        let mut options = Self {
            selector: Selector::default(),
            limit: MAX_LIMIT,
            place: None,
            watch: false,
            since: None,
            life: MAX_WATCH,
            include: Include::Metadata,
            dry_run: false,
        };
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let number = || value.parse::<u32>().map_err(|_| Refusal::bad_request(format!("{key}: is no number")));
            let truth = || match &*value {
                "true" | "1" => Ok(true),
                "false" | "0" | "" => Ok(false),
                _ => Err(Refusal::bad_request(format!("{key}: expected true or false"))),
            };
            match &*key {
                "fieldSelector" => options.selector = Selector::parse(&value)?,
                "labelSelector" if !value.is_empty() => {
                    return Err(Refusal::bad_request("labelSelector: requests have no labels; see fieldSelector"));
                }
                "limit" => {
                    let limit = usize::try_from(number()?).unwrap_or(MAX_LIMIT);
                    options.limit = if limit == 0 { MAX_LIMIT } else { limit.min(MAX_LIMIT) };
                }
                "continue" if !value.is_empty() => options.place = Some(Place::parse(&value)?),
                "watch" => options.watch = truth()?,
                // A client that would like the list in the watch asks for the list instead.
                "sendInitialEvents" if truth()? => {
                    let why = "sendInitialEvents: is not known here; list, then watch";
                    return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, why));
                }
                "resourceVersion" if !matches!(&*value, "" | "0") => options.since = Some(value.into_owned()),
                "timeoutSeconds" => {
                    let life = Duration::from_secs(number()?.into());
                    options.life = if life.is_zero() { MAX_WATCH } else { life.min(MAX_WATCH) };
                }
                "includeObject" => {
                    options.include = match &*value {
                        "None" => Include::None,
                        "Metadata" | "" => Include::Metadata,
                        "Object" => Include::Object,
                        _ => return Err(Refusal::bad_request("includeObject: expected None, Metadata or Object")),
                    }
                }
                "dryRun" => options.dry_run = !value.is_empty(),
                _ => {}
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: Method, path: &str) -> Result<Question, Refusal> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        Question::parse(&method, path, query)
    }

    const BASE: &str = "/apis/log.bellhop.dev/v1alpha1";

    /// Every resource and every verb: what it takes, or which status it is refused with.
    #[test]
    fn each_question_takes_a_right() {
        let rows = [
            ("GET", "/requests", Ok("list requests in \"\" of \"\"")),
            ("GET", "/requests?watch=true", Ok("watch requests in \"\" of \"\"")),
            ("GET", "/namespaces/a/requests", Ok("list requests in \"a\" of \"\"")),
            (
                "GET",
                "/namespaces/a/requests?fieldSelector=metadata.name%3D0-b",
                Ok("list requests in \"a\" of \"0-b\""),
            ),
            ("GET", "/namespaces/a/requests?watch=1", Ok("watch requests in \"a\" of \"\"")),
            ("GET", "/namespaces/a/requests?watch=0", Ok("list requests in \"a\" of \"\"")),
            (
                "GET",
                "/namespaces/a/requests/0-67e55044-10b1-426f-9247-bb680e5fe0c8",
                Ok("get requests in \"a\" of \"0-67e55044-10b1-426f-9247-bb680e5fe0c8\""),
            ),
            (
                "POST",
                "/namespaces/a/requests/0-67e55044-10b1-426f-9247-bb680e5fe0c8/replay",
                Ok("create requests/replay in \"a\" of \"0-67e55044-10b1-426f-9247-bb680e5fe0c8\""),
            ),
            ("GET", "/namespaces/a/requests/0-67e55044-10b1-426f-9247-bb680e5fe0c8/replay", Err(405)),
            ("POST", "/namespaces/a/requests/0-67e55044-10b1-426f-9247-bb680e5fe0c8/replay?dryRun=All", Err(400)),
            ("POST", "/namespaces/a/subscriptions/web/send", Ok("create subscriptions/send in \"a\" of \"web\"")),
            ("POST", "/namespaces/a/subscriptions/web/send?dryRun=All", Err(400)),
            ("GET", "/namespaces/a/subscriptions/web/send", Err(405)),
            ("POST", "/namespaces/a/subscriptions/w%2fb/send", Err(400)),
            ("POST", "/namespaces/-/subscriptions/web/send", Err(400)),
            ("GET", "/namespaces/a/subscriptions/web", Err(404)),
            ("GET", "/namespaces/a/subscriptions", Err(404)),
            (
                "GET",
                "/namespaces/a/captures?watch=true&fieldSelector=metadata.name%3Dsketch",
                Ok("watch captures in \"a\" of \"sketch\""),
            ),
            ("GET", "/namespaces/a/captures?watch=true", Err(400)),
            ("GET", "/namespaces/a/captures?fieldSelector=metadata.name%3Dsketch", Err(400)),
            ("GET", "/namespaces/a/captures?watch=true&fieldSelector=metadata.name%3Da/b", Err(400)),
            ("POST", "/namespaces/a/captures?watch=true&fieldSelector=metadata.name%3Dsketch", Err(405)),
            ("GET", "/captures?watch=true&fieldSelector=metadata.name%3Dsketch", Err(404)),
            ("GET", "/namespaces/a/captures/sketch", Err(404)),
            ("POST", "/namespaces/a/requests", Err(405)),
            ("PUT", "/namespaces/a/requests/0-67e55044-10b1-426f-9247-bb680e5fe0c8", Err(405)),
            ("PATCH", "/namespaces/a/requests/0-67e55044-10b1-426f-9247-bb680e5fe0c8", Err(405)),
            ("DELETE", "/namespaces/a/requests/0-67e55044-10b1-426f-9247-bb680e5fe0c8", Err(405)),
            ("DELETE", "/namespaces/a/requests", Err(405)),
            ("POST", "/requests", Err(405)),
            ("GET", "/namespaces/a/requests/0-67e55044-10b1-426f-9247-bb680e5fe0c8/status", Err(404)),
            ("GET", "/namespaces/a/requests/0-b", Err(404)),
            ("GET", "/namespaces/a/other", Err(404)),
            ("GET", "/namespaces/a", Err(404)),
            ("GET", "/namespaces/a/requests/0-67e55044-10b1-426f-9247-bb680e5fe0c8/replay/x", Err(404)),
            ("GET", "/namespaces/a/requests/%ff", Err(404)),
            ("GET", "/namespaces/-/requests", Err(400)),
            ("GET", "/namespaces//requests", Err(400)),
            ("GET", "/namespaces/a%2fb/requests/0-67e55044-10b1-426f-9247-bb680e5fe0c8", Err(400)),
        ];
        for (method, path, expected) in rows {
            let asked = ask(method.parse().unwrap(), &format!("{BASE}{path}"));
            let said = asked.as_ref().map_err(|refusal| refusal.code().as_u16()).map(|question| {
                let wish = question.wish().unwrap();
                let slash = if wish.subresource.is_empty() { "" } else { "/" };
                let (verb, resource, sub) = (wish.verb, wish.resource.name(), wish.subresource);
                format!("{verb} {resource}{slash}{sub} in {:?} of {:?}", wish.namespace, wish.name)
            });
            assert_eq!(said.as_deref().map_err(|code| *code), expected, "{method} {path}");
        }
        for (path, expected) in [
            ("/apis", Question::Groups),
            ("/apis/log.bellhop.dev", Question::Group),
            (BASE, Question::Resources),
            ("/openapi/v2", Question::OpenApi2),
            ("/openapi/v3", Question::OpenApi3),
            ("/openapi/v3/apis/log.bellhop.dev/v1alpha1", Question::OpenApi3Group),
        ] {
            let question = ask(Method::GET, path).unwrap();
            assert!(question == expected && question.wish().is_none(), "{path}");
        }
        assert!(ask(Method::GET, "/apis/other.dev").is_err());
    }

    #[test]
    fn limits_are_kept() {
        for (query, limit) in [("", 500), ("limit=0", 500), ("limit=7", 7), ("limit=100000", 500)] {
            let Question::List(_, page, include) = several(None, query).unwrap() else { panic!("{query}") };
            assert_eq!((page.limit, include), (limit, Include::Metadata), "{query}");
        }
        for (query, seconds) in [("", 3600), ("&timeoutSeconds=0", 3600), ("&timeoutSeconds=5", 5)] {
            let question = several(None, &format!("watch=true{query}")).unwrap();
            let Question::Watch(_, watch, _) = question else { panic!("{query}") };
            assert_eq!((watch.life.as_secs(), watch.since), (seconds, None), "{query}");
        }
        for (query, word) in [
            ("limit=many", "limit"),
            ("watch=maybe", "watch"),
            ("includeObject=All", "includeObject"),
            ("labelSelector=a", "labelSelector"),
            ("continue=x", "continue"),
            ("fieldSelector=a", "fieldSelector"),
            ("watch=true&sendInitialEvents=true", "sendInitialEvents"),
        ] {
            assert!(several(None, query).unwrap_err().message().starts_with(word), "{query}");
        }
    }
}
