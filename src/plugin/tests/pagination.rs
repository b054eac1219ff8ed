//! Lists of several pages.

use super::calls::{acme, ids, response};
use super::*;
use url::Url;

fn paged(url: &str, pagination: Value) -> Plugin {
    compile(with_all([("/webhook/find/url", json!(url)), ("/webhook/find/pagination", pagination)])).unwrap()
}

/// Reads all pages, with answers by URL, and gives the URLs that were asked.
fn read(plugin: &Plugin, answer: impl Fn(&Url) -> HttpResponse) -> Result<Vec<String>, CallError> {
    let given = acme();
    let (mut page, mut asked) = (Page::First, Vec::new());
    loop {
        let call = plugin.find_call(&given.context(), &page)?.unwrap();
        asked.push(call.url[url::Position::BeforePath..].to_owned());
        let next = plugin.next_page(&given.context(), &call.url, &page, &answer(&call.url))?;
        match next {
            Some(next) if asked.len() < 10 => page = next,
            _ => return Ok(asked),
        }
    }
}

#[test]
fn pages_have_numbers() {
    let plugin = paged(
        "{+parameters.baseURL}/hooks?limit=2{&page}",
        json!({"first": 1, "next": "size(response.body) == 2 ? page + 1 : null"}),
    );
    let answer = |url: &Url| response(200, if url.query() == Some("limit=2&page=3") { "[5]" } else { "[1, 2]" });
    let asked = read(&plugin, answer).unwrap();
    assert_eq!(asked, ["/hooks?limit=2&page=1", "/hooks?limit=2&page=2", "/hooks?limit=2&page=3"]);
}

#[test]
fn pages_have_cursors() {
    let pagination = json!({"next": "response.body.?next.orValue('')"});
    let answer = |url: &Url| {
        let next = match url.query() {
            None | Some("limit=2" | "cursor=" | "limit=2&cursor=") => json!({"next": "a&b=.."}),
            Some(query) if query.ends_with("a%26b%3D..") => json!({"next": "/z"}),
            _ => json!({"other": 1}),
        };
        response(200, next.to_string())
    };
    let named = paged("{+parameters.baseURL}/hooks{?page}", pagination.clone());
    assert_eq!(read(&named, answer).unwrap(), ["/hooks", "/hooks?page=a%26b%3D..", "/hooks?page=%2Fz"]);
    // The parameter has another name than `page`: before the second page it is empty.
    let other = paged("{+parameters.baseURL}/hooks?cursor={page}", pagination.clone());
    let asked = read(&other, answer).unwrap();
    assert_eq!(asked, ["/hooks?cursor=", "/hooks?cursor=a%26b%3D..", "/hooks?cursor=%2Fz"]);
    // GraphQL has it in the body.
    let body = compile(with_all([
        ("/webhook/find/method", json!("POST")),
        ("/webhook/find/body", json!("{'query': 'q', 'variables': {'after': page}}")),
        ("/webhook/find/pagination", pagination),
    ]))
    .unwrap();
    let bodies = [Page::First, Page::Value(json!("c"))].map(|page| {
        let call = body.find_call(&acme().context(), &page).unwrap().unwrap();
        super::calls::body(&call)["variables"]["after"].clone()
    });
    assert_eq!(bodies, [Value::Null, json!("c")]);
}

#[test]
fn pages_have_urls() {
    let plugin = paged(
        "{+parameters.baseURL}/hooks?per_page=100",
        json!({"nextURL": "nextLink(response.headers.?link.orValue(''))"}),
    );
    let linked = |link: &str| {
        let mut response = response(200, "[]");
        response.headers.insert("link", link.parse().unwrap());
        response
    };
    let answer = |url: &Url| match url.query() {
        Some("per_page=100") => linked("<https://git.example.com/hooks?page=2>; rel=\"next\", <x>; rel=\"last\""),
        Some("page=2") => linked("<?page=3>; rel=next"),
        _ => response(200, "[]"),
    };
    assert_eq!(read(&plugin, answer).unwrap(), ["/hooks?per_page=100", "/hooks?page=2", "/hooks?page=3"]);

    for (link, problem) in [
        (
            "<https://evil.example.com/hooks>; rel=next",
            "leads from https://git.example.com to https://evil.example.com",
        ),
        ("<http://git.example.com/hooks>; rel=next", "to http://git.example.com"),
        ("<//evil.example.com>; rel=next", "to https://evil.example.com"),
        ("<https://user@git.example.com/>; rel=next", "leads from"),
        ("<https://[>; rel=next", "gives no URL"),
        ("<?per_page=100>; rel=next", "the page that was just read"),
    ] {
        let error = read(&plugin, |_| linked(link)).unwrap_err();
        assert!(matches!(error, CallError::UnexpectedAnswer { .. }), "{link}: {error}");
        let text = error.to_string();
        assert!(text.contains("spec.webhook.find.pagination.nextURL") && text.contains(problem), "{link}: {text}");
    }
    // What was stored as a page is checked once more.
    let evil = Page::Url("https://evil.example.com/hooks".parse().unwrap());
    let error = plugin.find_call(&acme().context(), &evil).unwrap_err();
    assert!(matches!(error, CallError::OriginNotAllowed { .. }), "{error}");
}

#[test]
fn what_cannot_be_a_page_is_an_error() {
    let plugin = paged("{+parameters.baseURL}/hooks{?page}", json!({"first": 1, "next": "response.body.next"}));
    let next = |body: Value| {
        let asked = "https://git.example.com/hooks".parse().unwrap();
        plugin.next_page(&acme().context(), &asked, &Page::First, &response(200, body.to_string()))
    };
    assert_eq!(next(json!({"next": null})).unwrap(), None);
    assert_eq!(next(json!({"next": ""})).unwrap(), None);
    assert_eq!(next(json!({"next": 2})).unwrap(), Some(Page::Value(json!(2))));
    for body in [
        json!({}),
        json!({"next": 1}),
        json!({"next": true}),
        json!({"next": [2]}),
        json!({"next": {}}),
        json!({"next": "x".repeat(5000)}),
    ] {
        let error = next(body.clone()).unwrap_err();
        assert!(matches!(error, CallError::UnexpectedAnswer { .. }), "{body}: {error}");
    }
    let asked = "https://git.example.com/hooks".parse().unwrap();
    let failed = plugin.next_page(&acme().context(), &asked, &Page::First, &response(500, r#"{"next": null}"#));
    assert!(failed.is_err(), "a failed page is not the last one");
    // Without pagination there is one page.
    let single = super::plugin().next_page(&acme().context(), &asked, &Page::First, &response(200, "[]"));
    assert_eq!(single.unwrap(), None);
}

#[test]
fn a_found_webhook_says_how_it_is() {
    let plugin = compile(with_all([
        ("/webhook/create/capture/values", json!({"resource": "response.body.resource"})),
        ("/webhook/find/values", json!({"resource": "item.resource"})),
        ("/webhook/find/healthy", json!("item.active && events.all(e, e in item.events)")),
        ("/webhook/find/expiresAt", json!("item.end")),
        ("/webhook/find/match", json!("item.name == callback.name || item.url == callback.url")),
    ]))
    .unwrap();
    let list = json!([
        {"id": 1, "name": "bellhop-0123456789abcdef", "active": true, "events": ["push"], "resource": "r", "end": 1_767_323_045},
        {"id": 2, "name": "", "url": super::calls::URL, "active": false, "events": ["push"], "resource": "", "end": null},
        {"id": 3, "name": "bellhop-0123456789abcdef", "active": true, "events": [], "resource": "r", "end": null},
        {"id": 4, "name": "other", "url": "https://other"}
    ]);
    let found = plugin.found(&acme().context(), &response(200, list.to_string())).unwrap();
    let healthy: Vec<bool> = found.iter().map(|found| found.healthy).collect();
    assert_eq!((healthy, found[0].expires_at), (vec![true, false, false], Some(1_767_323_045_000)));
    assert_eq!((found[1].expires_at, found[0].values["resource"].as_str()), (None, "r"));
    assert_eq!(ids(found), ["1", "2", "3"]);
}

#[test]
fn the_examples_read_all_pages() {
    let gitea = example("gitea-push");
    let mut given = super::calls::given(json!({"baseURL": "http://127.0.0.1:3000", "owner": "a", "repository": "b"}));
    let hooks = |count: usize, total: usize| {
        let mut response = response(200, serde_json::to_string(&vec![json!({}); count]).unwrap());
        response.headers.insert("x-total-count", total.into());
        response
    };
    let next = |page: &Page, count: usize, total: usize| {
        let asked = gitea.find_call(&given.context(), page).unwrap().unwrap().url;
        (
            asked.query().unwrap().to_owned(),
            gitea.next_page(&given.context(), &asked, page, &hooks(count, total)).unwrap(),
        )
    };
    let page = |number: i64| Page::Value(json!(number));
    assert_eq!(next(&Page::First, 3, 3), ("limit=50&page=1".to_owned(), None));
    assert_eq!(next(&Page::First, 0, 0).1, None);
    // The administrator allows thirty: 45 are two pages.
    assert_eq!(next(&Page::First, 30, 45).1, Some(page(2)));
    assert_eq!(next(&page(2), 15, 45), ("limit=50&page=2".to_owned(), Some(page(3))));
    assert_eq!(next(&page(3), 0, 45).1, None);

    let list =
        json!([{"id": 3, "active": false, "events": ["push"], "config": {"url": super::calls::URL}}]).to_string();
    assert!(!gitea.found(&given.context(), &response(200, list)).unwrap()[0].healthy);

    let github = example("github-push");
    given.parameters = object(json!({"owner": "acme", "repository": "web"}));
    let asked = github.find_call(&given.context(), &Page::First).unwrap().unwrap().url;
    let mut first = response(200, "[]");
    let link = "<https://api.github.com/repositories/1/hooks?per_page=100&page=2>; rel=\"next\"";
    first.headers.insert("link", link.parse().unwrap());
    let second = github.next_page(&given.context(), &asked, &Page::First, &first).unwrap().unwrap();
    let call = github.find_call(&given.context(), &second).unwrap().unwrap();
    assert_eq!(call.url.path(), "/repositories/1/hooks");
    let last = github.next_page(&given.context(), &call.url, &second, &response(200, "[]")).unwrap();
    assert_eq!(last, None);
}
