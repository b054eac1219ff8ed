//! What kubectl makes of a scalar without quotes.

use serde_json::{Number, Value};

/// kubectl reads YAML 1.1, in which `on`, `no` and `y` are booleans.
pub fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => return Value::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

fn number(text: &str) -> Option<Number> {
    let (minus, digits) =
        text.strip_prefix('-').map_or((false, text.strip_prefix('+').unwrap_or(text)), |rest| (true, rest));
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    let radix =
        |prefix: &str, radix: u32| digits.strip_prefix(prefix).and_then(|rest| u64::from_str_radix(rest, radix).ok());
    if let Some(whole) = digits.parse::<u64>().ok().or_else(|| radix("0x", 16)).or_else(|| radix("0o", 8)) {
        return match minus {
            false => Some(whole.into()),
            true => i64::try_from(whole).ok().map(|whole| (-whole).into()),
        };
    }
    // Words such as `infinity` and `1_000` are strings.
    let decimal = digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    let float = digits.parse::<f64>().ok().filter(|_| decimal)?;
    Number::from_f64(if minus { -float } else { float })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_and_numbers() {
        for (text, expected) in [
            ("", Value::Null),
            ("on", json!(true)),
            ("No", json!(false)),
            ("12", json!(12)),
            ("-12", json!(-12)),
            ("0x1F", json!(31)),
            ("1.5", json!(1.5)),
            ("-1e3", json!(-1000.0)),
            (".5", json!(0.5)),
            ("1.2.3", json!("1.2.3")),
            ("300s", json!("300s")),
            ("-", json!("-")),
            ("2022-11-28", json!("2022-11-28")),
            ("inf", json!("inf")),
            ("body.ref", json!("body.ref")),
        ] {
            assert_eq!(resolve(text), expected, "{text}");
        }
    }
}
