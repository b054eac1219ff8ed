//! A little browser: it keeps cookies, follows redirects, reads forms and submits them. It shows nothing and runs no
//! scripts.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use reqwest::header::{CONTENT_TYPE, COOKIE, HeaderMap, LOCATION, ORIGIN, REFERRER_POLICY, SET_COOKIE};
use reqwest::{Method, Url};

/// More redirects in a row than any login has.
const MAX_REDIRECTS: usize = 20;

/// A browser with its cookies.
#[derive(Debug, Default)]
pub struct Browser {
    /// By host and name; as in real browsers, the port makes no difference.
    cookies: BTreeMap<(String, String), Cookie>,
    stop_before: Option<String>,
}

#[derive(Debug)]
struct Cookie {
    value: String,
    path: String,
}

/// What the browser shows.
#[derive(Debug, Clone)]
pub struct Page {
    /// The address of the page, or, where the browser was told to stop, the one that it would have gone to.
    pub url: Url,
    /// The status; 0 where the browser was told to stop.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The text of the page, with its tags.
    pub html: String,
}

/// A form of a page.
#[derive(Debug, Clone)]
pub struct Form {
    action: Url,
    method: Method,
    origin: String,
    fields: Vec<(String, String)>,
}

impl Browser {
    /// A browser without cookies.
    pub fn new() -> Browser {
        Browser::default()
    }

    /// From now on, a redirect to an address that begins with this is not followed: the page says where it leads.
    pub fn stop_before(&mut self, prefix: &str) {
        self.stop_before = Some(prefix.to_owned());
    }

    /// Follows every redirect again.
    pub fn stop_nowhere(&mut self) {
        self.stop_before = None;
    }

    /// Opens an address.
    pub async fn open(&mut self, url: &str) -> Result<Page> {
        self.load(Method::GET, url.parse().with_context(|| format!("no address: {url}"))?, None).await
    }

    /// A form that a page's script would send to its own site.
    pub fn form(&self, action: &str, fields: &[(&str, &str)]) -> Result<Form> {
        let action: Url = action.parse().with_context(|| format!("no address: {action}"))?;
        let origin = action.origin().ascii_serialization();
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Ok(Form { action, method: Method::POST, origin, fields })
    }

    /// Submits a form, with some fields filled in or added; the name and value of the button are a field, too.
    pub async fn submit(&mut self, form: &Form, fill: &[(&str, &str)]) -> Result<Page> {
        let mut fields = form.fields.clone();
        for (name, value) in fill {
            fields.retain(|(field, _)| field != name);
            fields.push(((*name).to_owned(), (*value).to_owned()));
        }
        // What serializes a query serializes a form.
        let mut encoder: Url = "http://localhost/".parse()?;
        encoder.query_pairs_mut().extend_pairs(fields);
        let encoded = encoder.query().unwrap_or_default().to_owned();
        let mut action = form.action.clone();
        if form.method == Method::GET {
            action.set_query(Some(&encoded));
            return self.load(Method::GET, action, None).await;
        }
        self.load(form.method.clone(), action, Some((encoded, form.origin.clone()))).await
    }

    async fn load(&mut self, mut method: Method, mut url: Url, mut form: Option<(String, String)>) -> Result<Page> {
        for _ in 0..MAX_REDIRECTS {
            let mut request = crate::http::client().request(method.clone(), url.clone());
            let cookies = self.cookies_for(&url);
            if !cookies.is_empty() {
                request = request.header(COOKIE, cookies);
            }
            if let Some((body, origin)) = &form {
                request = request
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .header(ORIGIN, origin)
                    .body(body.clone());
            }
            let response =
                request.send().await.with_context(|| format!("{method} {}", url.origin().ascii_serialization()))?;
            let (status, headers) = (response.status(), response.headers().clone());
            let html = response.text().await?;
            self.keep_cookies(&url, &headers);
            let target = headers.get(LOCATION).filter(|_| status.is_redirection());
            let Some(target) = target else { return Ok(Page { url, status: status.as_u16(), headers, html }) };
            url = url.join(target.to_str()?)?;
            if self.stop_before.as_ref().is_some_and(|prefix| url.as_str().starts_with(prefix.as_str())) {
                return Ok(Page { url, status: 0, headers, html });
            }
            if !matches!(status.as_u16(), 307 | 308) {
                (method, form) = (Method::GET, None);
            }
        }
        bail!("more than {MAX_REDIRECTS} redirects")
    }

    fn cookies_for(&self, url: &Url) -> String {
        let host = url.host_str().unwrap_or_default();
        let sent = self.cookies.iter().filter(|((of, _), cookie)| of == host && url.path().starts_with(&cookie.path));
        sent.map(|((_, name), cookie)| format!("{name}={}", cookie.value)).collect::<Vec<_>>().join("; ")
    }

    fn keep_cookies(&mut self, url: &Url, headers: &HeaderMap) {
        for text in headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok()) {
            let mut parts = text.split(';').map(str::trim);
            let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { continue };
            let key = (url.host_str().unwrap_or_default().to_owned(), name.to_owned());
            let (mut path, mut over) = ("/".to_owned(), value.is_empty());
            for (attribute, value) in parts.filter_map(|part| part.split_once('=')) {
                match attribute.to_ascii_lowercase().as_str() {
                    "path" => value.clone_into(&mut path),
                    "max-age" => over |= value == "0" || value.starts_with('-'),
                    "expires" => over |= value.contains(" 1970 "),
                    _ => {}
                }
            }
            match over {
                true => drop(self.cookies.remove(&key)),
                false => drop(self.cookies.insert(key, Cookie { value: value.to_owned(), path })),
            }
        }
    }
}

impl Page {
    /// The first form whose action contains this; an empty action is the page's own address.
    pub fn form(&self, action: &str) -> Result<Form> {
        let forms = self.forms()?;
        let found = forms.into_iter().find(|form| form.action.as_str().contains(action));
        found.with_context(|| format!("{} has no form for {action:?}: {}", self.url.path(), self.text()))
    }

    /// All forms.
    pub fn forms(&self) -> Result<Vec<Form>> {
        // As browsers do: the origin of a page that must not be told is `null`.
        let hidden = self.headers.get(REFERRER_POLICY).is_some_and(|policy| policy == "no-referrer");
        let origin = if hidden { "null".to_owned() } else { self.url.origin().ascii_serialization() };
        let mut forms: Vec<Form> = Vec::new();
        let mut open = false;
        for (name, attributes) in tags(&self.html) {
            match name.as_str() {
                "form" => {
                    let method = attributes.get("method").map(|method| method.to_ascii_uppercase());
                    forms.push(Form {
                        action: self.url.join(attributes.get("action").map_or("", String::as_str))?,
                        method: if method.as_deref() == Some("POST") { Method::POST } else { Method::GET },
                        origin: origin.clone(),
                        fields: Vec::new(),
                    });
                    open = true;
                }
                "/form" => open = false,
                "input" if open => {
                    let value = attributes.get("value").cloned().unwrap_or_default();
                    let box_ = attributes.get("type").is_some_and(|kind| kind == "checkbox");
                    if let (Some(form), Some(name), false) = (forms.last_mut(), attributes.get("name"), box_) {
                        form.fields.push((name.clone(), value));
                    }
                }
                _ => {}
            }
        }
        Ok(forms)
    }

    /// The address of the first link that contains this.
    pub fn link(&self, part: &str) -> Result<String> {
        let links = tags(&self.html).into_iter().filter(|(name, _)| name == "a");
        let mut targets = links.filter_map(|(_, mut attributes)| attributes.remove("href"));
        let found = targets.find(|target| target.contains(part));
        let found = found.with_context(|| format!("{} has no link to {part:?}", self.url.path()))?;
        Ok(self.url.join(&found)?.to_string())
    }

    /// What can be read, without tags, in one line.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut rest = self.html.as_str();
        while let Some((before, tag)) = rest.split_once('<') {
            text.push_str(before);
            text.push(' ');
            let skipped = ["style", "script"].into_iter().find(|name| tag.starts_with(name));
            let end = skipped.and_then(|name| tag.find(&format!("</{name}")).map(|at| at + 2)).unwrap_or(0);
            rest = tag[end..].split_once('>').map_or("", |(_, after)| after);
        }
        text.push_str(rest);
        unescape(&text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// A parameter of the address.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.url.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
    }
}

/// The tags of a page, with their attributes.
fn tags(html: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut found = Vec::new();
    let mut rest = html;
    while let Some((_, tag)) = rest.split_once('<') {
        let name: String = tag.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '/').collect();
        let mut attributes = BTreeMap::new();
        let mut inside = &tag[name.len()..];
        loop {
            inside = inside.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
            if inside.is_empty() || inside.starts_with('>') {
                break;
            }
            let end = inside.find(|c: char| c.is_whitespace() || c == '=' || c == '>').unwrap_or(inside.len());
            let attribute = inside[..end].to_ascii_lowercase();
            inside = &inside[end..];
            let mut value = "";
            if let Some(after) = inside.strip_prefix('=') {
                let quote = after.chars().next().filter(|c| *c == '"' || *c == '\'');
                (value, inside) = match quote {
                    Some(quote) => after[1..].split_once(quote).unwrap_or((&after[1..], "")),
                    None => {
                        let end = after.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(after.len());
                        after.split_at(end)
                    }
                };
            } else if end == 0 {
                // Neither a name nor a value: not HTML that anybody meant.
                inside = inside.get(1..).unwrap_or_default();
            }
            attributes.insert(attribute, unescape(value));
        }
        found.push((name.to_ascii_lowercase(), attributes));
        rest = inside;
    }
    found
}

fn unescape(text: &str) -> String {
    let marks = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#34;", "\""), ("&#39;", "'"), ("&#43;", "+")];
    marks.iter().fold(text.to_owned(), |text, (mark, c)| text.replace(mark, c)).replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read() -> Result<()> {
        let html = "<p title='a'>x</p><!-- y --><form action=\"/go?a=1&amp;b=2\" method=post><input type=hidden name=\"q\" \
                    value='1 &quot;2&quot;'><input name=login><input type=checkbox name=no><br/></form><input name=out>";
        let url: Url = "http://127.0.0.1:1/at/here".parse()?;
        let page = Page { url, status: 200, headers: HeaderMap::new(), html: html.to_owned() };
        let form = page.form("/go")?;
        assert_eq!((form.action.as_str(), form.method), ("http://127.0.0.1:1/go?a=1&b=2", Method::POST));
        assert_eq!(form.fields, [("q".to_owned(), "1 \"2\"".to_owned()), ("login".to_owned(), String::new())]);
        assert_eq!(form.origin, "http://127.0.0.1:1");
        assert!(page.form("/nowhere").is_err());
        assert_eq!(page.text(), "x");
        Ok(())
    }
}
