//! The rules of the definition (`x-kubernetes-validations`), for who looks at a resource before the API server does.

use super::cel::value::from_json;
use super::cel::{Expression, Scope, Variables, with_stack};
use serde_json::Value;

/// Whether a value keeps a rule, an expression over `self`. The API server decides; a rule that cannot be evaluated here,
/// because it asks for the old value or for what CEL has not in Bellhop, is left to it.
pub fn keeps_rule(rule: &str, value: &Value) -> bool {
    let kept = || {
        let expression = Expression::compile("rule", rule, &Scope::default().any("self")).ok()?;
        let value = from_json(value);
        expression.boolean(&Variables::default().with("self", &value)).ok()
    };
    // The data of an evaluation does not leave its thread.
    with_stack("rule", kept).ok().flatten().unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rule_is_kept_or_not_and_what_cannot_be_asked_is_left_to_the_api_server() {
        let one = "[has(self.a), has(self.b)].filter(set, set).size() == 1";
        assert!(keeps_rule(one, &json!({"a": 1})));
        assert!(!keeps_rule(one, &json!({})) && !keeps_rule(one, &json!({"a": 1, "b": 2})));
        assert!(keeps_rule("self.spec == oldSelf.spec", &json!({})));
        assert!(keeps_rule("self.metadata.name.size() <= 63", &json!({})));
        assert!(!keeps_rule("self.name.size() <= 3", &json!({"name": "long"})));
    }
}
