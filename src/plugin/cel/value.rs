//! JSON to CEL values and back.

use cel::common::types::{
    CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelOptional, CelString, CelTimestamp,
    CelUInt,
};
use cel::common::value::Val;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;

/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999Z in Unix milliseconds, between which a CEL timestamp lies.
const FIRST: i64 = -62_135_596_800_000;
const LAST: i64 = 253_402_300_799_999;

/// Most values and names of fields in a payload. Each takes some hundred bytes while expressions see it.
pub(crate) const MOST_VALUES: u64 = 500_000;
/// Most bytes that an expression may give, as JSON, more or less.
pub(crate) const LARGEST_OUTPUT: usize = 8 * 1024 * 1024;
/// What a map, and each of its fields, costs besides the values: it is hashed anew when it is copied.
const MAP: u64 = 3;
const MAP_ENTRY: u64 = 3;

/// A CEL value that owns everything it is made of.
pub(crate) type Data = Box<dyn Val>;

/// A CEL value that is read straight from JSON.
pub(crate) struct Parsed(pub Data);

/// JSON whose every string, number and nesting is checked as [`Parsed`] would, without keeping anything.
pub(crate) struct Checked;

pub(crate) fn null() -> Data {
    Box::new(CelNull)
}

pub(crate) fn string(text: impl Into<String>) -> Data {
    Box::new(CelString::from(text.into()))
}

pub(crate) fn integer(number: i64) -> Data {
    Box::new(CelInt::from(number))
}

/// The CEL timestamp of a time in Unix milliseconds; null for one that is not in the years 1 to 9999.
pub(crate) fn timestamp(millis: i64) -> Data {
    match chrono::DateTime::from_timestamp_millis(millis) {
        Some(time) if (FIRST..=LAST).contains(&millis) => Box::new(CelTimestamp::from(time.fixed_offset())),
        _ => null(),
    }
}

fn unsigned(number: u64) -> Data {
    match i64::try_from(number) {
        Ok(number) => integer(number),
        // Where it does not fit an int, a uint keeps every digit; CEL compares the two by value.
        Err(_) => Box::new(CelUInt::from(number)),
    }
}

fn list(items: Vec<Data>) -> Data {
    Box::new(CelList::from(items))
}

/// A CEL map with these fields.
pub(crate) fn record<K: Into<String>>(fields: impl IntoIterator<Item = (K, Data)>) -> Data {
    let map: HashMap<CelMapKey<'static>, Data> =
        fields.into_iter().map(|(name, value)| (CelMapKey::from(name.into()), value)).collect();
    Box::new(CelMap::from(map))
}

/// The CEL list of these strings.
pub(crate) fn strings(items: &[String]) -> Data {
    list(items.iter().map(string).collect())
}

/// The CEL value of a JSON value. Integers stay integers.
pub(crate) fn from_json(json: &serde_json::Value) -> Data {
    match json {
        serde_json::Value::Null => null(),
        serde_json::Value::Bool(value) => Box::new(CelBool::from(*value)),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => integer(number),
            (None, Some(number)) => unsigned(number),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        serde_json::Value::String(text) => string(text),
        serde_json::Value::Array(items) => list(items.iter().map(from_json).collect()),
        serde_json::Value::Object(fields) => from_object(fields),
    }
}

/// The CEL map of a JSON object.
pub(crate) fn from_object(fields: &serde_json::Map<String, serde_json::Value>) -> Data {
    record(fields.iter().map(|(name, value)| (name, from_json(value))))
}

/// The JSON value of a CEL value: an optional that has none is null, bytes are base64, a timestamp is RFC 3339.
///
/// # Errors
/// What JSON has no form for, such as a type or an infinite number; more than [`LARGEST_OUTPUT`].
pub(crate) fn to_json(value: &dyn Val) -> Result<serde_json::Value, String> {
    let mut room = LARGEST_OUTPUT;
    write(value, &mut room)
}

/// Takes what a value has in bytes off the room that is left.
fn fit(bytes: usize, room: &mut usize) -> Result<(), String> {
    match room.checked_sub(bytes) {
        Some(left) => {
            *room = left;
            Ok(())
        }
        None => Err(format!("gives more than {LARGEST_OUTPUT} bytes, which is the most that an expression may give")),
    }
}

fn write(value: &dyn Val, room: &mut usize) -> Result<serde_json::Value, String> {
    use base64::Engine as _;
    // What JSON takes at least, with a comma.
    fit(2, room)?;
    if let Some(text) = value.downcast_ref::<CelString>() {
        fit(text.inner().len(), room)?;
        return Ok(text.inner().into());
    }
    if let Some(items) = value.downcast_ref::<CelList>() {
        return items
            .inner()
            .iter()
            .map(|item| write(item.as_ref(), room))
            .collect::<Result<Vec<_>, _>>()
            .map(Into::into);
    }
    if let Some(fields) = value.downcast_ref::<CelMap>() {
        let mut object = serde_json::Map::new();
        for (name, value) in fields.inner() {
            let name = key(name);
            fit(name.len(), room)?;
            object.insert(name, write(value.as_ref(), room)?);
        }
        return Ok(object.into());
    }
    if let Some(optional) = value.downcast_ref::<CelOptional>() {
        return optional.inner().map_or(Ok(serde_json::Value::Null), |value| write(value, room));
    }
    if let Some(bytes) = value.downcast_ref::<CelBytes>() {
        fit(bytes.inner().len() / 3 * 4, room)?;
        return Ok(base64::engine::general_purpose::STANDARD.encode(bytes.inner()).into());
    }
    if let Some(number) = value.downcast_ref::<CelInt>() {
        return Ok((*number.inner()).into());
    }
    if let Some(number) = value.downcast_ref::<CelUInt>() {
        return Ok((*number.inner()).into());
    }
    if let Some(number) = value.downcast_ref::<CelDouble>() {
        return serde_json::Number::from_f64(*number.inner())
            .map(Into::into)
            .ok_or_else(|| "is a number that JSON cannot write".to_owned());
    }
    if let Some(value) = value.downcast_ref::<CelBool>() {
        return Ok((*value.inner()).into());
    }
    if value.downcast_ref::<CelNull>().is_some() {
        return Ok(serde_json::Value::Null);
    }
    if let Some(time) = value.downcast_ref::<CelTimestamp>() {
        return Ok(time.inner().to_rfc3339().into());
    }
    Err(format!("is {}, which JSON cannot write", describe_type(value)))
}

/// A copy of a value that borrows nothing.
///
/// # Errors
/// What has no JSON form.
pub(crate) fn own(value: &dyn Val) -> Result<Data, String> {
    if let Some(items) = value.downcast_ref::<CelList>() {
        return items.inner().iter().map(|item| own(item.as_ref())).collect::<Result<Vec<_>, _>>().map(list);
    }
    if let Some(fields) = value.downcast_ref::<CelMap>() {
        let fields = fields.inner().iter().map(|(name, value)| Ok((key(name), own(value.as_ref())?)));
        return fields.collect::<Result<Vec<_>, String>>().map(record);
    }
    to_json(value).map(|scalar| from_json(&scalar))
}

fn key(key: &CelMapKey<'_>) -> String {
    match key {
        CelMapKey::Bool(key) => key.inner().to_string(),
        CelMapKey::Int(key) => key.inner().to_string(),
        CelMapKey::String(key) => key.inner().to_owned(),
        CelMapKey::UInt(key) => key.inner().to_string(),
    }
}

/// Name of a value's type with its article, for messages.
pub(crate) fn describe_type(value: &dyn Val) -> String {
    let name = value.get_type().name();
    let name = match name {
        "null_type" => return "null".to_owned(),
        name if name.starts_with("list") => "list",
        name if name.starts_with("map") => "map",
        name => name,
    };
    let article = if name.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {name}")
}

/// Takes what it costs to copy, compare or search a value off `left`; nothing is left if it costs more, and no more of
/// the value is visited than was paid for.
pub(crate) fn pay(value: &dyn Val, left: u64) -> Option<u64> {
    let left = left.checked_sub(1)?;
    if let Some(text) = value.downcast_ref::<CelString>() {
        left.checked_sub(text.inner().len() as u64 / 32)
    } else if let Some(items) = value.downcast_ref::<CelList>() {
        items.inner().iter().try_fold(left, |left, item| pay(item.as_ref(), left))
    } else if let Some(fields) = value.downcast_ref::<CelMap>() {
        let left = left.checked_sub(MAP)?;
        fields.inner().values().try_fold(left, |left, value| pay(value.as_ref(), left.checked_sub(MAP_ENTRY)?))
    } else if let Some(optional) = value.downcast_ref::<CelOptional>() {
        optional.inner().map_or(Some(left), |value| pay(value, left))
    } else if let Some(bytes) = value.downcast_ref::<CelBytes>() {
        left.checked_sub(bytes.inner().len() as u64 / 32)
    } else {
        Some(left)
    }
}

thread_local! {
    /// Values and names that may still be read, and what was left before.
    static ROOM: Cell<Option<u64>> = const { Cell::new(Some(MOST_VALUES)) };
}

/// Reads something with [`Parsed`] or [`Checked`] that has at most `most` values and names of fields; gives what was read, and
/// how many there were. There is one more than that if there are too many.
pub(crate) fn within<T>(most: u64, read: impl FnOnce() -> T) -> (T, u64) {
    ROOM.set(Some(most));
    let result = read();
    let left = ROOM.replace(Some(MOST_VALUES));
    (result, left.map_or(most.saturating_add(1), |left| most - left))
}

/// Counts a value, or a name.
fn count<E: serde::de::Error>() -> Result<(), E> {
    let left = ROOM.get().and_then(|left| left.checked_sub(1));
    ROOM.set(left);
    if left.is_some() { Ok(()) } else { Err(E::custom("too many values")) }
}

struct Builder;

impl<'de> Visitor<'de> for Builder {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(null())
    }
    fn visit_bool<E>(self, value: bool) -> Result<Data, E> {
        Ok(Box::new(CelBool::from(value)))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Data, E> {
        Ok(integer(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Data, E> {
        Ok(unsigned(value))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Data, E> {
        Ok(Box::new(CelDouble::from(value)))
    }
    fn visit_str<E>(self, value: &str) -> Result<Data, E> {
        Ok(string(value))
    }
    fn visit_string<E>(self, value: String) -> Result<Data, E> {
        Ok(string(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Data, A::Error> {
        let mut built = Vec::new();
        while let Some(Parsed(item)) = items.next_element()? {
            built.push(item);
        }
        Ok(list(built))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Data, A::Error> {
        let mut built: HashMap<CelMapKey<'static>, Data> = HashMap::new();
        while let Some((name, Parsed(value))) = fields.next_entry::<String, _>()? {
            count()?;
            built.insert(CelMapKey::from(name), value);
        }
        Ok(Box::new(CelMap::from(built)))
    }
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        count()?;
        deserializer.deserialize_any(Builder).map(Parsed)
    }
}

struct Checker;

// `IgnoredAny` alone would pass what `Parsed` refuses later: deep nesting, invalid UTF-8, numbers out of range.
impl<'de> Visitor<'de> for Checker {
    type Value = Checked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_str<E>(self, _: &str) -> Result<Checked, E> {
        Ok(Checked)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Checked, A::Error> {
        while items.next_element::<Checked>()?.is_some() {}
        Ok(Checked)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Checked, A::Error> {
        while fields.next_entry::<CheckedKey, Checked>()?.is_some() {
            count()?;
        }
        Ok(Checked)
    }
}

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        count()?;
        deserializer.deserialize_any(Checker)
    }
}

struct CheckedKey;

impl<'de> Deserialize<'de> for CheckedKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Key;
        impl Visitor<'_> for Key {
            type Value = CheckedKey;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }
            fn visit_str<E>(self, _: &str) -> Result<CheckedKey, E> {
                Ok(CheckedKey)
            }
        }
        deserializer.deserialize_str(Key)
    }
}
