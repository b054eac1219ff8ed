//! Where a runner is, and whether the administrator allows it. No I/O.

use crate::api::Runner;
use url::{Host, Url};

/// Why there is no URL for a runner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunnerError {
    /// The field `runner` says nothing of where it is, or more than one thing.
    #[error("runner: set exactly one of service, url and resource")]
    NotOne,
    /// What it names is malformed.
    #[error("runner: {0}")]
    Malformed(String),
    /// The administrator has not allowed the URL's origin.
    #[error("runner.url: the origin {0} is not allowed; the administrator allows origins with --allow-runner-origin")]
    NotAllowed(String),
    /// The administrator has not switched on runners that are the cluster.
    #[error("runner.resource: objects are not made here; the administrator switches this on with --resource-runners")]
    ResourcesOff,
}

/// Where runners may be.
#[derive(Clone, Debug)]
pub struct Runners {
    cluster_domain: String,
    allowed: Vec<AllowedOrigin>,
    resources: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct AllowedOrigin {
    scheme: String,
    host: Host,
    /// `None` is every port.
    port: Option<u16>,
}

impl Runners {
    /// `cluster_domain` is the domain of the cluster's Services, `origins` what `--allow-runner-origin` lists: scheme,
    /// host and port, of which only the port may be left out (then it is the scheme's) or `*`.
    ///
    /// # Errors
    /// A line that names the origin that cannot be read.
    pub fn new(cluster_domain: &str, origins: &[String]) -> Result<Self, String> {
        let allowed = origins.iter().map(|origin| AllowedOrigin::parse(origin)).collect::<Result<_, _>>()?;
        Ok(Self { cluster_domain: cluster_domain.trim_matches('.').to_owned(), allowed, resources: false })
    }

    /// The same, where objects of the cluster are made for events, or are not.
    pub fn with_resources(self, switched_on: bool) -> Self {
        Self { resources: switched_on, ..self }
    }

    /// Whether events may go to this runner, named in this namespace.
    ///
    /// # Errors
    /// If the runner is malformed or not allowed.
    pub fn check(&self, namespace: &str, runner: &Runner) -> Result<(), RunnerError> {
        match (&runner.resource, self.resources) {
            (None, _) => self.url(namespace, runner).map(drop),
            (Some(_), _) if runner.service.is_some() || runner.url.is_some() => Err(RunnerError::NotOne),
            (Some(_), false) => Err(RunnerError::ResourcesOff),
            (Some(_), true) => Ok(()),
        }
    }

    /// The URL to which the events for `runner`, named in this namespace, are posted.
    ///
    /// # Errors
    /// If the runner is malformed, not allowed, or has no URL.
    pub fn url(&self, namespace: &str, runner: &Runner) -> Result<Url, RunnerError> {
        match (&runner.service, &runner.url) {
            _ if runner.resource.is_some() => Err(RunnerError::NotOne),
            (Some(service), None) => {
                // The API server has checked these; a name that could end the host would leave the workspace.
                if !is_label(&service.name) || !is_label(namespace) {
                    return Err(RunnerError::Malformed(format!("service.name: {:?} is not a name", service.name)));
                }
                if !service.path.starts_with('/') {
                    return Err(RunnerError::Malformed("service.path: does not begin with a slash".to_owned()));
                }
                let host = format!("{}.{namespace}.svc.{}", service.name, self.cluster_domain);
                let text = format!("http://{host}:{}{}", service.port, service.path);
                let url = parse(&text).map_err(|error| RunnerError::Malformed(format!("service: {error}")))?;
                if url.host_str() == Some(host.as_str()) {
                    Ok(url)
                } else {
                    Err(RunnerError::Malformed("service: does not make a host".to_owned()))
                }
            }
            (None, Some(text)) => {
                let url = parse(text).map_err(|error| RunnerError::Malformed(format!("url: {error}")))?;
                match self.allowed.iter().any(|origin| origin.allows(&url)) {
                    true => Ok(url),
                    false => Err(RunnerError::NotAllowed(url.origin().ascii_serialization())),
                }
            }
            _ => Err(RunnerError::NotOne),
        }
    }
}

fn parse(text: &str) -> Result<Url, String> {
    let mut url: Url = text.parse().map_err(|error| format!("not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("the scheme must be http or https".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials do not belong into a URL".to_owned());
    }
    url.set_fragment(None);
    Ok(url)
}

fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

impl AllowedOrigin {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("allowed runner origin {text:?}: {why}; expected something like https://dify.example.com")
        };
        let (base, every_port) = match text.strip_suffix(":*") {
            Some(base) => (base, true),
            None => (text, false),
        };
        let url: Url = base.parse().map_err(|error: url::ParseError| wrong(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("the scheme must be http or https"));
        }
        let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !plain || !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("an origin has a scheme, a host and a port only"));
        }
        if every_port && url.port().is_some() {
            return Err(wrong("two ports"));
        }
        let host = url.host().ok_or_else(|| wrong("no host"))?.to_owned();
        if host.to_string().contains('*') {
            return Err(wrong("only the port can be *"));
        }
        let port = if every_port { None } else { url.port_or_known_default() };
        Ok(Self { scheme: url.scheme().to_owned(), host, port })
    }

    fn allows(&self, url: &Url) -> bool {
        url.scheme() == self.scheme
            && url.host().is_some_and(|host| host.to_owned() == self.host)
            && (self.port.is_none() || self.port == url.port_or_known_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ResourceRunner, ServiceRunner};

    fn runners(origins: &[&str]) -> Runners {
        let origins: Vec<String> = origins.iter().map(|origin| (*origin).to_owned()).collect();
        Runners::new("cluster.local", &origins).unwrap()
    }

    fn service(name: &str, path: &str) -> Runner {
        let service = ServiceRunner { name: name.to_owned(), port: 8080, path: path.to_owned() };
        Runner { service: Some(service), ..Runner::default() }
    }

    fn url(text: &str) -> Runner {
        Runner { url: Some(text.to_owned()), ..Runner::default() }
    }

    #[test]
    fn a_service_is_in_its_own_namespace() {
        let runners = runners(&[]);
        let at = |runner: &Runner| runners.url("team-a", runner).map(String::from);
        assert_eq!(at(&service("runner", "/runs")).unwrap(), "http://runner.team-a.svc.cluster.local:8080/runs");
        assert_eq!(at(&service("runner", "/")).unwrap(), "http://runner.team-a.svc.cluster.local:8080/");
        assert_eq!(
            at(&service("runner", "//evil.example/@x:1")).unwrap(),
            "http://runner.team-a.svc.cluster.local:8080//evil.example/@x:1"
        );
        for name in ["runner.team-b", "user@evil.example#", "a/b", "", "-a", "Runner", "runner:1", "%72unner"] {
            assert!(matches!(at(&service(name, "/")), Err(RunnerError::Malformed(_))), "{name}");
        }
        for path in ["", "@evil.example/", ".evil.example/", "runs", "\\evil"] {
            assert!(matches!(at(&service("runner", path)), Err(RunnerError::Malformed(_))), "{path}");
        }
        assert_eq!(
            Runners::new("localhost", &[]).unwrap().url("team-a", &service("runner", "/")).unwrap().as_str(),
            "http://runner.team-a.svc.localhost:8080/"
        );
    }

    #[test]
    fn urls_need_an_allowed_origin() {
        let runners = runners(&["https://dify.example.com", "http://127.0.0.1:*", "http://runner.test:8080"]);
        let allowed = [
            "https://dify.example.com/",
            "https://dify.example.com:443/v1/workflows/run?x=1",
            "https://DIFY.example.com/a/../b",
            "http://127.0.0.1:1/",
            "http://127.0.0.1:65535/x",
            "http://127.0.0.1/",
            "http://0x7f.1/",
            "http://runner.test:8080/#fragment",
        ];
        for text in allowed {
            assert!(runners.url("team-a", &url(text)).is_ok(), "{text}");
        }
        let refused = [
            "http://dify.example.com/",
            "https://dify.example.com:8443/",
            "https://dify.example.com.evil.example/",
            "https://evil.example/dify.example.com",
            "https://dify.example.com./",
            "https://sub.dify.example.com/",
            "https://127.0.0.1/",
            "http://127.0.0.2:80/",
            "http://[::ffff:127.0.0.1]/",
            "http://runner.test/",
            "http://runner.test:80/",
        ];
        for text in refused {
            let error = runners.url("team-a", &url(text)).unwrap_err();
            assert!(matches!(error, RunnerError::NotAllowed(_)), "{text}: {error}");
        }
        let malformed = [
            "https://dify.example.com@evil.example/x@y",
            "https://user@dify.example.com/",
            "https://:pw@dify.example.com/",
            "ftp://dify.example.com/",
            "file:///etc/passwd",
            "dify.example.com",
            "/runs",
            "",
            "https://",
        ];
        for text in malformed {
            let error = runners.url("team-a", &url(text)).unwrap_err();
            assert!(matches!(error, RunnerError::Malformed(_)), "{text}: {error}");
        }
        let backslash = runners.url("team-a", &url("https://evil.example\\@dify.example.com/")).unwrap_err();
        assert_eq!(backslash, RunnerError::NotAllowed("https://evil.example".into()));
    }

    #[test]
    fn exactly_one_kind_of_runner() {
        let both = Runner { url: Some("http://127.0.0.1/".into()), ..service("runner", "/") };
        assert_eq!(runners(&["http://127.0.0.1:*"]).url("team-a", &both), Err(RunnerError::NotOne));
        assert_eq!(runners(&[]).url("team-a", &Runner::default()), Err(RunnerError::NotOne));
        let resource = ResourceRunner {
            service_account_name: "workflows".into(),
            manifest: serde_json::Map::new(),
            fields: Vec::new(),
        };
        let object = Runner { resource: Some(resource.clone()), ..Runner::default() };
        let mixed = Runner { resource: Some(resource), ..service("runner", "/") };
        let on = runners(&[]).with_resources(true);
        assert_eq!(runners(&[]).check("team-a", &object), Err(RunnerError::ResourcesOff));
        assert_eq!(on.check("team-a", &object), Ok(()));
        assert_eq!(on.check("team-a", &mixed), Err(RunnerError::NotOne));
        assert_eq!(on.url("team-a", &mixed), Err(RunnerError::NotOne));
        assert_eq!(on.url("team-a", &object), Err(RunnerError::NotOne));
        assert_eq!(on.check("team-a", &service("runner", "/")), Ok(()));
        assert_eq!(on.check("team-a", &both), Err(RunnerError::NotOne));
    }

    #[test]
    fn origins_that_are_none_are_refused_at_start() {
        for text in [
            "dify.example.com",
            "https://*.example.com",
            "https://*",
            "*",
            "https://a.example/path",
            "https://a.example?x",
            "https://user@a.example",
            "ftp://a.example",
            "https://a.example:80:*",
            "https://a.example:99999",
        ] {
            let error = Runners::new("cluster.local", &[text.to_owned()]).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
