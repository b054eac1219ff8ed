//! OAuth 2.0: URLs, origins, default clients, token responses.

use super::calls::{access_token, acme, given, response};
use super::*;
use crate::api::{ClientAuthentication, OAuth2Grant};
use std::time::Duration;

fn method() -> Value {
    json!({
        "authorizationURL": "{+parameters.baseURL}/authorize",
        "tokenURL": "{+parameters.baseURL}/token",
        "scopes": ["a", "b"],
        "pkce": true,
        "defaultClient": {"secretRef": {"name": "c"}, "origins": ["https://git.example.com"]}
    })
}

fn authorized(change: impl FnOnce(&mut Value)) -> Result<Plugin, Vec<Mistake>> {
    let mut method = method();
    change(&mut method);
    compile(with_all([("/authorization/oauth2", method)]))
}

#[test]
fn a_method_is_offered_and_says_how_it_works() {
    let plugin = authorized(|_| {}).unwrap();
    assert_eq!(plugin.offers(), ["apiKey", "oauth2", "manual"]);
    let oauth2 = plugin.oauth2().unwrap();
    assert_eq!(
        (oauth2.grant, oauth2.client_authentication),
        (OAuth2Grant::AuthorizationCode, ClientAuthentication::Basic)
    );
    assert_eq!((oauth2.scopes.join(&oauth2.scope_separator), oauth2.pkce), ("a b".to_owned(), true));
    let mut spec = with_all([("/authorization", json!({ "oauth2": method() }))]);
    spec["webhook"].as_object_mut().unwrap().remove("create");
    assert_eq!(compile(spec).unwrap().offers(), ["manual"]);

    let mut given = acme();
    given.credentials = access_token("t0ken");
    let call = plugin.create_call(&given.context()).unwrap();
    assert_eq!(call.headers["authorization"], "Bearer t0ken");
    assert!(call.headers["authorization"].is_sensitive());
    given.credentials = access_token("");
    let missing = plugin.create_call(&given.context()).unwrap_err();
    assert_eq!(missing, CallError::MissingCredential("accessToken".to_owned()));
    assert!(super::plugin().oauth2().is_none());
    assert!(matches!(super::plugin().token_url(&acme().parameters), Err(CallError::NoSuchCall(_))));
}

#[test]
fn addresses_are_expanded_and_stay_in_the_allowed_origins() {
    let plugin = authorized(|method| method["revocationURL"] = json!("https://revoke.example.com")).unwrap();
    let parameters = acme().parameters;
    assert_eq!(plugin.authorization_url(&parameters).unwrap().as_str(), "https://git.example.com/authorize");
    assert_eq!(plugin.token_url(&parameters).unwrap().as_str(), "https://git.example.com/token");
    let error = plugin.revocation_url(&parameters).unwrap_err();
    assert!(matches!(&error, CallError::OriginNotAllowed { field, .. } if field.ends_with("oauth2.revocationURL")));
    assert!(authorized(|_| {}).unwrap().revocation_url(&parameters).unwrap().is_none());
    let evil = authorized(|method| method["tokenURL"] = json!("https://evil.example.com/token")).unwrap();
    assert!(matches!(evil.token_url(&parameters), Err(CallError::OriginNotAllowed { .. })));
    let none = Map::new();
    assert!(matches!(plugin.token_url(&none), Err(CallError::InvalidUrl { .. })));
    let machine = authorized(|method| {
        method["grant"] = json!("clientCredentials");
        method.as_object_mut().unwrap().remove("authorizationURL");
    })
    .unwrap();
    assert!(matches!(machine.authorization_url(&parameters), Err(CallError::NoSuchCall(_))));
    assert!(machine.default_client_allowed(&parameters).unwrap());
}

#[test]
fn a_default_client_is_for_its_origins_alone() {
    let at = |plugin: &Plugin, base: &str| plugin.default_client_allowed(&given(json!({ "baseURL": base })).parameters);
    let plugin = authorized(|_| {}).unwrap();
    assert!(at(&plugin, "https://git.example.com").unwrap());
    assert!(at(&plugin, "https://git.example.com:443/sub").unwrap());
    for base in ["https://evil.example.com", "http://git.example.com", "https://git.example.com:8443"] {
        assert!(!at(&plugin, base).unwrap(), "{base}");
    }
    let without = authorized(|method| drop(method.as_object_mut().unwrap().remove("defaultClient"))).unwrap();
    assert!(!at(&without, "https://git.example.com").unwrap());
    // The token is issued at a fixed place, but the Subscription says where it is sent.
    let mut spec = with_all([("/authorization/oauth2", method())]);
    spec["allowedOrigins"] = json!(["https://login.example.com", "{+parameters.baseURL}"]);
    spec["authorization"]["oauth2"]["tokenURL"] = json!("https://login.example.com/token");
    spec["authorization"]["oauth2"]["authorizationURL"] = json!("https://login.example.com/authorize");
    spec["authorization"]["oauth2"]["defaultClient"]["origins"] = json!(["https://login.example.com"]);
    let plugin = compile(spec.clone()).unwrap();
    assert!(at(&plugin, "https://login.example.com").unwrap());
    assert!(!at(&plugin, "https://evil.example.com").unwrap());
    spec["authorization"]["oauth2"]["revocationURL"] = json!("{+parameters.baseURL}/revoke");
    assert!(!at(&compile(spec).unwrap(), "https://evil.example.com").unwrap());
}

fn form(text: &str) -> HttpResponse {
    let mut response = response(200, text.to_owned());
    response.headers.insert("content-type", "application/x-www-form-urlencoded; charset=utf-8".parse().unwrap());
    response
}

#[test]
fn token_responses_are_json_or_a_form() {
    let plugin = authorized(|_| {}).unwrap();
    let read = |answer: HttpResponse| {
        let token = plugin.token(&answer).unwrap();
        assert!(!format!("{token:?}").contains("t0ken"));
        let text = |secret: &Secret| secret.expose_str().unwrap().to_owned();
        (text(&token.access_token), token.refresh_token.as_ref().map(text), token.expires_in)
    };
    let hour = Some(Duration::from_secs(3600));
    let json = |body: Value| response(200, body.to_string());
    assert_eq!(
        read(json(json!({"access_token": "t0ken-a", "refresh_token": "t0ken-r", "expires_in": 3600}))),
        ("t0ken-a".to_owned(), Some("t0ken-r".to_owned()), hour)
    );
    assert_eq!(read(json(json!({"access_token": "t0ken", "expires_in": "3600"}))).2, hour);
    for body in [
        json!({"access_token": "t0ken"}),
        json!({"access_token": "t0ken", "refresh_token": null, "expires_in": null, "error": ""}),
        json!({"access_token": "t0ken", "refresh_token": "", "expires_in": 0}),
    ] {
        assert_eq!(read(json(body)), ("t0ken".to_owned(), None, None));
    }
    assert_eq!(
        read(form("access_token=t0ken%2B1&refresh_token=t0ken-r&expires_in=3600&token_type=bearer")),
        ("t0ken+1".to_owned(), Some("t0ken-r".to_owned()), hour)
    );
    assert_eq!(read(form("access_token=t0ken")), ("t0ken".to_owned(), None, None));
    let years = read(json(json!({"access_token": "t0ken", "expires_in": 1e300}))).2;
    assert_eq!(years, Some(Duration::from_secs(315_360_000)));

    for answer in [
        json(json!({})),
        json(json!({"access_token": ""})),
        json(json!({"access_token": null})),
        json(json!({"access_token": 7})),
        json(json!({"access_token": "t0ken", "refresh_token": 7})),
        json(json!({"access_token": "t0ken", "expires_in": "soon"})),
        json(json!({"access_token": "t0ken", "expires_in": -1})),
        response(500, r#"{"access_token": "t0ken"}"#),
        response(200, "access_token=t0ken"),
        response(200, ""),
        form("x=1"),
    ] {
        let error = plugin.token(&answer).unwrap_err();
        assert!(matches!(error, CallError::UnexpectedAnswer { .. }), "{error}");
        assert!(!error.to_string().contains("t0ken"), "{error}");
    }
    // GitHub says so with status 200.
    for answer in [
        json(json!({"error": "bad_verification_code", "error_description": "The code is wrong."})),
        form("error=bad_verification_code&error_description=The+code+is+wrong."),
    ] {
        let error = plugin.token(&answer).unwrap_err();
        assert_eq!(error, CallError::Unsuccessful { status: 200, words: "The code is wrong.".to_owned() });
    }
}

#[test]
fn the_fields_of_a_token_response_may_be_elsewhere() {
    // Slack: the token of the person is inside.
    let plugin = authorized(|method| {
        method["tokenResponse"] =
            json!({"accessToken": "response.body.authed_user.access_token", "expiresIn": "response.body.life / 1000"});
    })
    .unwrap();
    let body =
        json!({"authed_user": {"access_token": "t"}, "access_token": "bot", "life": 60000, "refresh_token": "r"});
    let token = plugin.token(&response(200, body.to_string())).unwrap();
    assert_eq!((token.access_token.expose(), token.expires_in), (&b"t"[..], Some(Duration::from_secs(60))));
    assert_eq!(token.refresh_token.unwrap().expose(), b"r");
    let error = plugin.token(&response(200, r#"{"authed_user": {}}"#)).unwrap_err().to_string();
    assert!(error.contains("spec.authorization.oauth2.tokenResponse.accessToken"), "{error}");
}

#[test]
fn the_examples_have_their_vendors_addresses() {
    let gitea = example("gitea-push");
    let parameters = object(json!({"baseURL": "http://127.0.0.1:3000/git", "owner": "a", "repository": "b"}));
    assert_eq!(gitea.token_url(&parameters).unwrap().path(), "/git/login/oauth/access_token");
    let url = gitea.authorization_url(&parameters).unwrap();
    assert_eq!(url.as_str(), "http://127.0.0.1:3000/git/login/oauth/authorize");
    assert!(gitea.oauth2().unwrap().pkce && !gitea.default_client_allowed(&parameters).unwrap());
    let github = example("github-push");
    let mut given = given(json!({"owner": "acme", "repository": "web"}));
    assert_eq!(github.offers(), ["apiKey", "oauth2", "manual"]);
    assert_eq!(github.oauth2().unwrap().client_authentication, ClientAuthentication::Body);
    let url = github.token_url(&given.parameters).unwrap();
    assert_eq!(url.as_str(), "https://github.com/login/oauth/access_token");
    given.credentials = access_token("gho");
    let create = github.create_call(&given.context()).unwrap();
    assert_eq!(create.headers["authorization"], "Bearer gho");
    assert_eq!(create.headers["accept"], "application/vnd.github+json");
}
