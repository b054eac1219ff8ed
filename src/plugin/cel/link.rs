//! Link headers (RFC 8288).

/// The target of the first link whose relation is `next`; nothing if there is none or the header is malformed before it.
///
/// A header that was there several times has its values joined by commas, which is the same list.
pub(super) fn next(header: &str) -> Option<&str> {
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while let Some((target, tail)) = rest.strip_prefix('<')?.split_once('>') {
        let (is_next, tail) = parameters(tail);
        if is_next {
            return Some(target.trim());
        }
        rest = tail.trim_start_matches([' ', '\t', ',']);
    }
    None
}

/// Whether the parameters at the beginning say that the link is `next`, and what follows them.
fn parameters(mut rest: &str) -> (bool, &str) {
    let mut relation = None;
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        let Some(parameter) = rest.strip_prefix(';') else {
            let next = relation.is_some_and(|relation: &str| {
                // A relation is a list, and its names are compared without regard to case (section 2.1.1).
                relation.split_ascii_whitespace().any(|name| name.eq_ignore_ascii_case("next"))
            });
            return (next, rest);
        };
        let end = parameter.find(['=', ';', ',']).unwrap_or(parameter.len());
        let name = parameter[..end].trim();
        rest = &parameter[end..];
        let Some(value) = rest.strip_prefix('=') else { continue };
        let value = value.trim_start_matches([' ', '\t']);
        let text;
        (text, rest) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_at(quote(quoted)),
            None => value.split_at(value.find([';', ',']).unwrap_or(value.len())),
        };
        rest = rest.strip_prefix('"').unwrap_or(rest);
        // Of several, the first counts (section 3.3).
        if name.eq_ignore_ascii_case("rel") && relation.is_none() {
            relation = Some(text.trim());
        }
    }
}

/// Where a quoted string ends.
fn quote(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::next;

    #[test]
    fn the_next_page_is_found() {
        for (header, expected) in [
            ("<https://x/?page=2>; rel=\"next\", <https://x/?page=5>; rel=\"last\"", Some("https://x/?page=2")),
            ("<https://x/?a=1,2&b=3;4>; rel=prev, <?page=3>;rel=next", Some("?page=3")),
            ("<a>; title=\"x, <b>; rel=next\"; rel=\"first\", <c>; REL=\"index NEXT\"", Some("c")),
            ("<a>; title=\"\\\"\"; rel=\"next\"", Some("a")),
            ("<a>; rel=prev; rel=next", None),
            ("<a>; rev=\"next\"", None),
            ("<a>; rel=\"nextish\"", None),
            ("<a>", None),
            ("a; rel=next", None),
            ("<a; rel=next", None),
            ("<a>; rel", None),
            ("<a>; rel=\"next", Some("a")),
            (", <>;rel=next", Some("")),
            ("", None),
        ] {
            assert_eq!(next(header), expected, "{header}");
        }
    }
}
