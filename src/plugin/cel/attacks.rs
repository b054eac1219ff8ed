//! Expressions that want to be expensive, with payloads that help them: one for each expensive thing in the language. The
//! unit tests and `make bench` share them.

use serde_json::{Value, json};

/// An expression, the payload that it sees as `body`, and what stops it.
pub struct Attack {
    /// What is expensive about it.
    pub name: &'static str,
    /// The expression.
    pub source: String,
    /// The payload.
    pub payload: fn() -> Value,
    /// How it ends.
    pub end: End,
}

/// How an attack ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The budget of work is used up.
    Work,
    /// It ends by itself, because all that the limits allow is affordable.
    Affordable,
    /// It fails; a part of the reason.
    Fails(&'static str),
}

use End::{Affordable, Fails, Work};

/// Numbers: as many as a payload may have values, more or less.
fn numbers() -> Value {
    json!({"n": vec![7; 400_000], "some": vec![7; 30_000], "few": vec![7; 1000]})
}

/// Maps: as many as a payload may have values.
fn maps() -> Value {
    json!({"n": vec![json!({"a": "b"}); 100_000]})
}

/// One long text, and a list to walk over it again and again.
fn text() -> Value {
    json!({"s": "x".repeat(5 << 20), "n": vec![7; 100_000], "t": format!("{}y", "x".repeat(5 << 20))})
}

/// A text of which each character takes two bytes.
fn wide() -> Value {
    json!({"s": "ö".repeat(2 << 20), "n": vec![7; 100_000]})
}

/// JSON inside of a text: small values, deep lists, and JSON in JSON in JSON.
fn nested() -> Value {
    let maps = Value::from(vec![json!({"a": {}}); 300_000]).to_string();
    let numbers = Value::from(vec![7; 2_000_000]).to_string();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let mut inside = json!("x".repeat(1 << 20)).to_string();
    for _ in 0..3 {
        inside = Value::from(inside).to_string();
    }
    json!({"maps": maps, "numbers": numbers, "deep": deep, "inside": inside, "n": vec![7; 10_000]})
}

/// Many different patterns, each costly to compile, and a text that each walks over.
fn patterns() -> Value {
    let costly: Vec<String> = (0..20_000).map(|n| format!("(\\pL\\w[^\\pL]){n}")).collect();
    let large: Vec<String> = (0..20_000).map(|n| format!("(\\pL{{1,40}}x?){{1,6}}{n}")).collect();
    let globs: Vec<String> = (0..20_000).map(|n| format!("{{{}}}{n}", "*a?,".repeat(200))).collect();
    json!({"costly": costly, "large": large, "globs": globs, "s": "a".repeat(1 << 20), "n": vec![7; 100_000], "longest": format!("({})*z", "a?".repeat(500))})
}

/// A text in which automata get lost.
fn noise() -> Value {
    let mut seed = 1_u32;
    let mut letter = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if seed & (1 << 20) == 0 { 'a' } else { 'b' }
    };
    json!({"s": (0..1 << 20).map(|_| letter()).collect::<String>(), "short": (0..1000).map(|_| letter()).collect::<String>(), "n": vec![7; 20_000]})
}

/// Megabytes of base64, of digits and of a Link header.
fn encoded() -> Value {
    json!({"b": "QUJD".repeat(1 << 20), "digits": "7".repeat(5 << 20), "n": vec![7; 100_000], "link": "<a>;x=\"y\",".repeat(400_000)})
}

/// All of them.
pub fn all() -> Vec<Attack> {
    let attack = |name, source: &str, payload, end| Attack { name, source: source.to_owned(), payload, end };
    let chain = |times| format!("'x'{}", ".replace('x','xxxxxxxxxx')".repeat(times));
    let many = |what: &str, times| format!("[{}]", vec![what; times].join(","));
    vec![
        attack("loop in a loop", "body.n.exists(a, body.n.exists(b, a + b < 0))", numbers, Work),
        attack("cheapest loop in a loop", "body.few.all(a, body.few.all(b, true))", numbers, Work),
        attack("loop over maps in a loop", "body.n.exists(a, body.n.exists(b, b.a == 'c'))", maps, Work),
        attack(
            "one loop, long body",
            &format!("body.few.all(a, {})", vec!["a == 7"; 100].join(" && ")),
            numbers,
            Affordable,
        ),
        attack(
            "one loop, functions",
            &format!("body.few.all(a, [{}].size() > 0)", vec!["string(a)"; 50].join(",")),
            numbers,
            Affordable,
        ),
        attack("errors that are absorbed", "body.n.exists(a, body.n.exists(b, b.none.none == 1))", maps, Work),
        attack("list of lists", "body.n.map(a, body.n)", numbers, Work),
        attack("list of maps", "body.some.map(a, {'a': a, 'b': [a], 'c': {'d': a}})", numbers, Work),
        attack(
            "filter and map in turn",
            "body.some.filter(x, x > 1).map(x, x + 1).filter(x, x > 1).map(x, x + 1)",
            numbers,
            Work,
        ),
        attack("list of the payload", &many("body", 300), maps, Work),
        attack(
            "map of the payload",
            &format!("{{{}}}", (0..100).map(|n| format!("'{n}': body")).collect::<Vec<_>>().join(",")),
            maps,
            Work,
        ),
        attack("lists added", &vec!["body.n"; 40].join(" + "), numbers, Work),
        attack("texts added", &vec!["body.s"; 40].join(" + "), text, Work),
        attack("texts added in a loop", "body.n.map(a, body.s + body.s)", text, Work),
        attack("maps compared", "body.n.all(a, body.n == body.n)", maps, Work),
        attack("lists compared", "body.few.all(a, body.n == body.n)", numbers, Work),
        attack("texts compared", "body.n.all(a, body.s == body.s)", text, Work),
        attack("membership", "body.some.all(a, !(-1 in body.n))", numbers, Work),
        attack("membership of texts", "body.n.all(a, !('b' in body.n))", maps, Work),
        attack("optional selection", "body.n.all(a, body.?s.orValue('') != '')", text, Work),
        attack("contains", "body.n.all(a, !body.s.contains('y'))", text, Work),
        attack(
            "contains, nearly",
            "body.n.all(a, !body.s.contains('xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxy'))",
            text,
            Work,
        ),
        attack("endsWith", "body.n.all(a, body.s.endsWith(body.s))", text, Work),
        attack("size of a text", "body.n.all(a, size(body.s) > 0)", wide, Work),
        attack("indexOf", "body.n.all(a, body.t.indexOf('y') > 0)", text, Work),
        attack("indexOf from the end", "body.n.all(a, body.s.indexOf('x', 2000000) > 0)", wide, Work),
        attack("lastIndexOf", "body.n.all(a, body.t.lastIndexOf('y') > 0)", text, Work),
        attack("charAt", "body.n.all(a, body.s.charAt(2097151) != '')", wide, Work),
        attack("substring", "body.n.all(a, body.s.substring(1, 2097152) != '')", wide, Work),
        attack("replace with the text", "body.s.replace('', body.s)", text, Work),
        attack("replace each character", "body.s.replace('x', 'yz')", text, Work),
        attack("replace, again and again", &chain(9), text, Work),
        attack("replace in a loop", "body.n.all(a, body.s.replace('y', 'z') != '')", text, Work),
        attack("split into characters", "body.s.split('')", text, Work),
        attack("split at each character", "body.s.split('x')", text, Work),
        attack("split and join", "body.n.map(a, body.s.split('y').join('z'))", text, Work),
        attack("split, many small ones", "body.some.map(a, 'a,b,c,d,e,f,g,h,i,j'.split(','))", numbers, Work),
        attack("join with the text", "body.n.map(a, 'x').join(body.s)", text, Work),
        attack("upper and lower case", "body.n.all(a, body.s.upperAscii().lowerAscii().trim() != '')", text, Work),
        attack("text to bytes and back", "body.n.all(a, string(bytes(body.s)) != '')", text, Work),
        attack("base64, encoded", "body.n.all(a, base64.encode(bytes(body.b)) != '')", encoded, Work),
        attack("base64, decoded", "body.n.all(a, base64.decode(body.b) != b'')", encoded, Work),
        attack("numbers to texts", "body.some.map(a, string(a * 1000000007))", numbers, Affordable),
        attack(
            "texts to numbers",
            "body.some.all(a, double('1.797693134862315708145274237317043567980705675258449965989174768031572607800285387605895586327668781715404589535143824642e308') > 0.0)",
            numbers,
            Affordable,
        ),
        attack(
            "timestamps",
            "body.some.all(a, timestamp('2024-01-02T03:04:05.123456789Z').getHours('America/New_York') >= 0)",
            numbers,
            Work,
        ),
        attack(
            "times to texts",
            "body.some.map(a, string(timestamp('2024-01-02T03:04:05Z') + duration('1h1m1s')))",
            numbers,
            Work,
        ),
        attack("digits as a number", "int(body.digits)", encoded, Fails("int")),
        attack("digits as a float", "double(body.digits) > 0.0", encoded, Affordable),
        attack("digits as a float, in a loop", "body.n.all(a, double(body.digits) > 0.0)", encoded, Work),
        attack("digits as JSON", "json(body.digits)", encoded, Fails("not JSON")),
        attack("digits, matched", "body.digits.matches('^[0-9]*$')", encoded, Work),
        attack("Link header", "body.n.all(a, nextLink(body.link) == '')", encoded, Work),
        attack("JSON inside: numbers", "json(body.numbers)", nested, Work),
        attack("JSON inside: maps", "json(body.maps)", nested, Work),
        attack("JSON inside: deep", "json(body.deep)", nested, Fails("JSON")),
        attack("JSON inside: JSON in JSON", "body.n.map(a, json(json(json(json(body.inside)))))", nested, Work),
        attack(
            "JSON inside: small, in a loop",
            "body.n.map(a, json('{\"a\":{\"b\":{\"c\":{\"d\":{}}}}}'))",
            nested,
            Work,
        ),
        attack("patterns of the payload", "body.costly.all(p, !body.s.matches(p))", patterns, Work),
        attack("large patterns of the payload", "body.large.all(p, !body.s.matches(p))", patterns, Work),
        attack("globs of the payload", "body.globs.all(p, !glob(p, 'bbbbb'))", patterns, Work),
        attack("list of globs", "glob(body.globs, 'bbbbb')", patterns, Work),
        attack("pattern made in a loop", "body.n.all(a, !'x'.matches('a' + string(a)))", patterns, Work),
        attack("longest pattern", "body.n.all(a, !body.s.matches(body.longest))", patterns, Work),
        attack("pattern with counts", "body.n.all(a, !body.s.matches('(a{1,20}b?){1,20}c'))", patterns, Work),
        attack("pattern of classes", "body.n.all(a, !body.s.matches('\\\\pL{1,2}z$'))", patterns, Work),
        attack("pattern with many states", "body.s.matches('a(a|b){12}c')", noise, Work),
        attack("pattern with very many states", "body.s.matches('(a|b)*a(a|b){100}c')", noise, Work),
        attack("word boundaries", "body.s.matches('\\\\b(a|b)*a(a|b){10}\\\\b')", noise, Work),
        attack("globs in which automata get lost", "body.n.all(a, !glob('*a??????????????c', body.s))", noise, Work),
        attack(
            "many states, short text, in a loop",
            "body.n.all(a, !body.short.matches('(a|b)*a(a|b){100}c'))",
            noise,
            Work,
        ),
        attack(
            "many counts, short text, in a loop",
            "body.n.all(a, !body.short.matches('((a|b)*a(a|b){1,10}){1,5}c'))",
            noise,
            Work,
        ),
        attack("classes of Unicode", "body.s.matches('(\\\\pL?x?)+c$')", noise, Work),
        attack("pattern, anywhere", "body.n.all(a, !body.s.matches('[a-q][^u-z]{13}x'))", patterns, Work),
    ]
}
