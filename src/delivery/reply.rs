//! Which answers of a runner can be handed on to a sender. No I/O.

use crate::ingress::Format;
use bytes::Bytes;
use serde::de::IgnoredAny;

/// What a runner answered with a status from 200 to 299.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// Its `content-type`, if it has one that is text.
    pub content_type: Option<&'a str>,
    /// The body, as far as it was read.
    pub body: &'a [u8],
    /// Whether that is all of it.
    pub whole: bool,
}

impl Answered<'_> {
    /// How the body is written, if it can be handed on.
    ///
    /// # Errors
    /// Why not, to be read after "what the runner answered".
    pub fn format(&self) -> Result<Format, &'static str> {
        if !self.whole {
            return Err("is incomplete, or longer than 64 KiB");
        }
        if self.body.is_empty() {
            return Err("is empty");
        }
        let essence = self.content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let format = match essence.to_ascii_lowercase().as_str() {
            "application/json" => Format::Json,
            "text/plain" => Format::Text,
            _ => return Err("is neither application/json nor text/plain"),
        };
        match format {
            _ if std::str::from_utf8(self.body).is_err() => Err("is not UTF-8"),
            Format::Json if serde_json::from_slice::<IgnoredAny>(self.body).is_err() => {
                Err("is not the JSON that it says")
            }
            format => Ok(format),
        }
    }
}

/// What is handed on, or why nothing is.
pub type Reply = Result<(Format, Bytes), &'static str>;

#[cfg(test)]
mod tests {
    use super::*;

    fn format(content_type: &str, body: &[u8]) -> Result<Format, &'static str> {
        Answered { content_type: Some(content_type), body, whole: true }.format()
    }

    #[test]
    fn json_and_plain_text_are_handed_on() {
        for kind in ["application/json", "application/json; charset=utf-8", "Application/JSON ;x=y"] {
            assert_eq!(format(kind, br#"{"text": "hi"}"#), Ok(Format::Json), "{kind}");
        }
        assert_eq!(format("text/plain", b"{"), Ok(Format::Text));
        assert_eq!(format("text/plain; charset=utf-8", "grüß".as_bytes()), Ok(Format::Text));
    }

    #[test]
    fn nothing_else_is() {
        for kind in ["text/html", "application/xml", "", "application/jsonp", "text/plain, text/html", "json"] {
            assert!(format(kind, b"{}").unwrap_err().contains("neither"), "{kind}");
        }
        let nothing = Answered { content_type: None, body: b"{}", whole: true };
        assert!(nothing.format().unwrap_err().contains("neither"));
        assert!(format("application/json", b"").unwrap_err().contains("empty"));
        assert!(format("application/json", b"{").unwrap_err().contains("not the JSON"));
        assert!(format("text/plain", b"\xff").unwrap_err().contains("UTF-8"));
        let cut = Answered { content_type: Some("text/plain"), body: b"hi", whole: false };
        assert!(cut.format().unwrap_err().contains("incomplete"));
    }
}
