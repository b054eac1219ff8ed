//! In which form a client wants the answer, from its header `Accept`.

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The objects as they are.
    Objects,
    /// A `Table` of meta.k8s.io/v1, which kubectl prints.
    Table,
    /// A discovery document that has all groups, in this version of apidiscovery.k8s.io.
    Discovery(&'static str),
}

/// The first form of the header that can be given, if there is one. Without a header, objects.
///
/// The order is the client's; kubectl names the table first and objects last. Weights (`q=`) are not looked at, as
/// Kubernetes does not either.
pub fn negotiate(header: Option<&str>, offered: &[Form]) -> Option<Form> {
    let Some(header) = header.filter(|header| !header.trim().is_empty()) else { return Some(Form::Objects) };
    header.split(',').filter_map(form).find(|form| offered.contains(form))
}

fn form(clause: &str) -> Option<Form> {
    let mut parts = clause.split(';').map(str::trim);
    let media = parts.next()?;
    if !matches!(media, "application/json" | "application/*" | "*/*") {
        return None;
    }
    let (mut kind, mut group, mut version) = ("", "", "");
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        match key.trim() {
            "as" => kind = value,
            "g" => group = value,
            "v" => version = value,
            // Asks for JSON with line breaks, and for a charset that JSON has anyway.
            _ => {}
        }
    }
    match (kind, group, version) {
        ("", _, _) => Some(Form::Objects),
        ("Table", "meta.k8s.io", "v1") => Some(Form::Table),
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Some(Form::Discovery("v2")),
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => Some(Form::Discovery("v2beta1")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_can_be_given_is_given() {
        let ask = |header: &str| negotiate(Some(header), &[Form::Objects, Form::Table]);
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,\
                       application/json";
        assert_eq!(ask(kubectl), Some(Form::Table));
        for header in ["application/json", "*/*", "", "application/vnd.kubernetes.protobuf,application/json"] {
            assert_eq!(ask(header), Some(Form::Objects), "{header}");
        }
        assert_eq!(negotiate(None, &[Form::Objects]), Some(Form::Objects));
        for header in [
            "application/yaml",
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            "application/json;as=Table;v=v2;g=meta.k8s.io",
        ] {
            assert_eq!(ask(header), None, "{header}");
        }
    }

    #[test]
    fn the_aggregator_gets_its_newest_discovery() {
        let aggregator = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                          application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        let offered = [Form::Discovery("v2"), Form::Discovery("v2beta1"), Form::Objects];
        assert_eq!(negotiate(Some(aggregator), &offered), Some(Form::Discovery("v2")));
        assert_eq!(negotiate(Some("application/json"), &offered), Some(Form::Objects));
    }
}
