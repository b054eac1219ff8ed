use super::value::{from_json, to_json};
use super::*;
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};

fn compile(source: &str, scope: &Scope) -> Result<Expression, Vec<Mistake>> {
    with_stack("spec.x", || Expression::compile("spec.x", source, scope)).unwrap()
}

fn body() -> Scope {
    Scope::default().any("body")
}

fn evaluate(source: &str, value: Json) -> Result<Json, String> {
    let expression = compile(source, &body()).unwrap_or_else(|mistakes| panic!("{source}: {mistakes:?}"));
    let value = from_json(&value);
    expression.json(&Variables::default().with("body", &value)).map_err(|error| error.reason)
}

fn mistake(source: &str) -> String {
    let mistakes = compile(source, &body()).err().unwrap_or_else(|| panic!("{source} compiles"));
    mistakes.into_iter().map(|mistake| mistake.problem).collect::<Vec<_>>().join("; ")
}

#[test]
fn functions_do_what_they_say() {
    for (source, expected) in [
        ("body.a.replace('refs/heads/', '')", json!("main")),
        ("'a-b-c'.replace('-', '+', 1)", json!("a+b-c")),
        ("'ab'.replace('', '-')", json!("-a-b-")),
        ("body.a.split('/')", json!(["refs", "heads", "main"])),
        ("'a,b,c'.split(',', 2)", json!(["a", "b,c"])),
        ("'aöb'.split('')", json!(["a", "ö", "b"])),
        ("'aöb'.split('', 2)", json!(["a", "öb"])),
        ("'a,b'.split(',', 0)", json!([])),
        ("['a', 'b'].join('-')", json!("a-b")),
        ("'MiX'.lowerAscii() + 'MiX'.upperAscii()", json!("mixMIX")),
        ("' x '.trim()", json!("x")),
        ("'aöb'.charAt(1)", json!("ö")),
        ("'aöb'.substring(1)", json!("öb")),
        ("'aöb'.substring(1, 2)", json!("ö")),
        ("'aöbö'.indexOf('ö', 2)", json!(3)),
        ("'aöbö'.lastIndexOf('ö')", json!(3)),
        ("'abc'.indexOf('x')", json!(-1)),
        ("body.?missing.?deep.orValue('none')", json!("none")),
        ("body.?a.hasValue()", json!(true)),
        ("optional.of(1).value()", json!(1)),
        ("body[?'missing'].orValue(7)", json!(7)),
        ("[1, 2, 3].filter(x, x > 1).map(x, x * 2)", json!([4, 6])),
        ("[1, 2].exists_one(x, x == 1)", json!(true)),
        ("has(body.a) && !has(body.b)", json!(true)),
        ("base64.encode(b'hello')", json!("aGVsbG8=")),
        ("string(base64.decode('aGVsbG8='))", json!("hello")),
        ("json('{\"n\": [1, 2.5, null]}').n", json!([1, 2.5, null])),
        ("json(base64.decode('eyJuIjogMTIzNDU2Nzg5MDEyMzQ1Njc4OX0=')).n", json!(1_234_567_890_123_456_789_i64)),
        ("'v1.2'.matches('^v[0-9]+') && matches('v1', 'v')", json!(true)),
        ("type(body.a) == string && type(1) == int", json!(true)),
        ("timestamp('2024-01-02T03:04:05Z').getFullYear()", json!(2024)),
        ("timestamp('2024-01-02T03:04:05Z')", json!("2024-01-02T03:04:05+00:00")),
        ("size(body.a) + body.a.size()", json!(30)),
        ("null == null ? 'n' : 'm'", json!("n")),
        ("{'a': [1, 2.5, true, null]}", json!({"a": [1, 2.5, true, null]})),
        ("body.missing == 1 || true", json!(true)),
    ] {
        assert_eq!(evaluate(source, json!({"a": "refs/heads/main"})), Ok(expected), "{source}");
    }
}

#[test]
fn every_function_that_is_offered_is_there() {
    // What `NAMES` lists and the interpreter does not know would be a failure on the first payload.
    for name in functions::NAMES {
        if matches!(*name, "all" | "exists" | "exists_one" | "filter" | "map" | "has") {
            continue;
        }
        let sources = [format!("{name}()"), format!("{name}(body)"), format!("body.{name}()")];
        let unknown = sources.iter().all(|source| {
            compile(source, &body()).is_err() || evaluate(source, json!({})).is_err_and(|e| e.contains("there is no"))
        });
        assert!(!unknown, "{name}");
    }
}

#[test]
fn globs_stop_at_slashes() {
    for (pattern, text, expected) in [
        ("main", "main", true),
        ("main", "main2", false),
        ("release/*", "release/1.0", true),
        ("release/*", "release/1/0", false),
        ("release/**", "release/1/0", true),
        ("**", "a/b/c", true),
        ("*", "a/b", false),
        ("v?", "v1", true),
        ("{main,dev}", "dev", true),
        ("[a-c]x", "bx", true),
        ("**/*.rs", "src/plugin/mod.rs", true),
        ("MAIN", "main", false),
    ] {
        let source = format!("glob('{pattern}', body) == {expected} && '{pattern}'.glob(body) == {expected}");
        assert_eq!(evaluate(&source, json!(text)), Ok(json!(true)), "{pattern} {text}");
    }
    assert_eq!(evaluate("glob(body, 'release/1')", json!(["main", "release/*"])), Ok(json!(true)));
    assert_eq!(evaluate("glob(body, 'x')", json!([])), Ok(json!(false)));
    assert!(evaluate("glob(body, 'x')", json!([1])).unwrap_err().contains("instead of string"));
    assert!(evaluate("glob(body, 'x')", json!("[")).unwrap_err().contains("is no glob"));
}

#[test]
fn integers_stay_integers() {
    for number in
        [json!(0), json!(-1), json!(i64::MAX), json!(i64::MIN), json!(u64::MAX), json!(9_007_199_254_740_993_u64)]
    {
        assert_eq!(evaluate("body.id", json!({"id": number})), Ok(number.clone()));
        let text = format!("{{\"id\": {number}}}");
        let parsed: value::Parsed = serde_json::from_str(&text).unwrap();
        assert_eq!(to_json(parsed.0.as_ref()), Ok(json!({"id": number})));
        assert_eq!(evaluate("string(body.id)", json!({"id": number})), Ok(json!(number.to_string())));
    }
    assert_eq!(evaluate("body.id == 18446744073709551615u", json!({"id": u64::MAX})), Ok(json!(true)));
    assert_eq!(evaluate("body.id", json!({"id": 1.5})), Ok(json!(1.5)));
}

#[test]
fn mistakes_have_a_position_and_say_what_is_there() {
    for (source, expected) in [
        ("", "is empty"),
        ("body.", "1:6"),
        ("body.ref ==", "1:12"),
        ("true &&\n  bdy.ref", "2:3: unknown variable `bdy`; did you mean `body`? here are: body"),
        ("credentials.token", "1:1: unknown variable `credentials`; here are: body"),
        ("body.ref.loweAscii()", "unknown function `loweAscii`; did you mean `lowerAscii`?"),
        ("foo(body)", "unknown function `foo`"),
        ("optional.off(1)", "unknown function `optional.off`; did you mean `optional.of`?"),
        ("body.ref.matches('(')", "is no regular expression"),
        ("glob('[', body.ref)", "is no glob"),
        ("Foo{a: 1}", "there is no message type `Foo`"),
        ("body.format([1])", "unknown function `format`"),
        ("[1].exists(x, y == x)", "1:15: unknown variable `y`"),
        ("'abc", "1:1"),
    ] {
        let problem = mistake(source);
        assert!(problem.contains(expected), "{source}: {problem}");
    }
    let scope = Scope::default().record("callback", ["url"]).record("credentials", ["token"]);
    let problem = compile("callback.secret", &scope).unwrap_err().remove(0).to_string();
    assert_eq!(problem, "spec.x: 1:1: `callback` has no `secret`; it has: url");
    let problem = compile("'x' +\n credentials.tokn", &scope).unwrap_err().remove(0).to_string();
    assert_eq!(problem, "spec.x: 2:2: `credentials` has no `tokn`; did you mean `token`? it has: token");
}

#[test]
fn a_variable_of_a_comprehension_hides_the_scope() {
    let scope = Scope::default().record("callback", ["url"]);
    let expression = compile("[{'x': 1}].exists(callback, callback.x == 1)", &scope).unwrap();
    assert!(!expression.uses("callback"));
    assert!(expression.boolean(&Variables::default()).unwrap());
}

#[test]
fn errors_are_errors_and_never_panics() {
    for source in [
        "1 / 0",
        "1 % 0",
        "9223372036854775807 + 1",
        "-9223372036854775808 - 1",
        "9223372036854775807 * 2",
        "0u - 1u",
        "-(-9223372036854775807 - 1)",
        "(-9223372036854775807 - 1) / -1",
        "(-9223372036854775807 - 1) % -1",
        "[1][5]",
        "[1][-1]",
        "'abc'.charAt(99)",
        "'abc'.substring(2, 1)",
        "'abc'.substring(-1)",
        "'a'.indexOf('a', 9)",
        "body.missing",
        "body.a.b",
        "body['x']",
        "body.list[1.5]",
        "int('x')",
        "int(1e30)",
        "uint(-1)",
        "int(18446744073709551615u)",
        "double('x')",
        "timestamp('yesterday')",
        "timestamp('9999-12-31T23:59:59Z') + duration('9999h')",
        "duration('1e400h')",
        "duration('999999999999h')",
        "timestamp(9223372036854775807)",
        "timestamp('2024-01-01T00:00:00Z').getHours('Nowhere/City')",
        "duration('-9223372036s') - duration('9223372036s') - duration('9223372036s')",
        "'a'.matches(body.bad)",
        "glob('[' + body.bad, 'a')",
        "bool('x')",
        "[1, 'a'].join()",
        "{'a': 1, 'a': 2}",
        "{null: 1}",
        "1 < 'a'",
        "1 + 1.0",
        "!1",
        "-'a'",
        "1 in 1",
        "1.exists(x, x)",
        "optional.none().value()",
        "base64.decode('?')",
        "string(b'\\xff')",
        "body.size",
        "size(1)",
        "[1].map(x, x / 0)",
        "true ? body.no : 1",
        "body.a()()",
    ] {
        let Ok(expression) = compile(source, &body()) else { continue };
        let value = from_json(&json!({"a": "x", "list": [1], "bad": "("}));
        let result = expression.json(&Variables::default().with("body", &value));
        let error = result.expect_err(source);
        assert!(!error.reason.is_empty() && error.reason.len() < 400, "{source}: {error}");
        assert!(!error.reason.contains("gave up"), "{source} made the interpreter panic: {error}");
    }
    assert_eq!(evaluate("body.pusher.name", json!({})).unwrap_err(), "cannot be evaluated: no such key: pusher");
    assert_eq!(evaluate("1 / body", json!(0)).unwrap_err(), "cannot be evaluated: division by zero");
}

#[test]
fn hostile_sources_are_refused_in_milliseconds() {
    let nested = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
    let sources = [
        nested("(", ")", 2000),
        nested("[", "]", 2000),
        nested("{1:", "}", 1000),
        "1".repeat(1 << 20),
        "(".repeat(4000),
        "[".repeat(4000),
        "!".repeat(4000) + "true",
        "-".repeat(4000) + "1",
        "1".to_owned() + &"+1".repeat(2000),
        "body".to_owned() + &".a".repeat(2000),
        "body".to_owned() + &"[0]".repeat(1300),
        "true".to_owned() + &"?true:true".repeat(400),
        "true ? ".repeat(400) + "true",
        "a.b(".repeat(900),
        "\"".repeat(4000),
        "'''".to_owned() + &"\\".repeat(4000),
        "[1].map(a, [1].map(b, [1].map(c, [1].map(d, a + b + c + d))))".to_owned(),
        "[1].exists(a, [1].exists(b, [1].exists(c, true)))".to_owned(),
        "body.map(a, body.map(b, b).map(c, body.map(d, d)))".to_owned(),
        "🦀".repeat(1000),
        "\0".repeat(4000),
        ")".repeat(4000),
        "a,".repeat(2000),
        "has(".repeat(1000),
        "[1].map(x,".repeat(400),
    ];
    for source in sources {
        let begin = Instant::now();
        let refused = compile(&source, &body()).is_err();
        let took = begin.elapsed();
        let start: String = source.chars().take(30).collect();
        // A run of `!` or `-` is folded by the parser, which is harmless.
        assert!(refused || start.starts_with(['!', '-']), "{start}");
        assert!(took < Duration::from_secs(15), "{start}: {took:?}");
    }
    assert!(mistake("[1].exists(a, [1].exists(b, [1].exists(c, true)))").contains("3 of all"));
    assert!(compile("[1].exists(a, [a].exists(b, b == 1)) && [1].all(a, [a].all(b, b == 1))", &body()).is_ok());
}

#[test]
fn evaluation_is_bounded() {
    let long = json!({"n": (0..200_000).collect::<Vec<_>>(), "s": "x".repeat(4 << 20), "one": {"a": {"b": "x".repeat(1 << 20)}}});
    for source in [
        "body.n.exists(a, body.n.exists(b, a + b < 0))",
        "body.n.map(a, body.n)",
        "body.n.map(a, body)",
        "body.n.all(a, body.s == body.s)",
        "body.n.all(a, body.s.contains('y') == false)",
        "body.n.all(a, body.?one.?a.?b.orValue('') != '')",
        "body.n.exists(a, body.n.exists(b, false) || false)",
        "body.s.replace('', body.s)",
        "body.s.split('').join(body.s)",
        "body.s.replace('x', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx')",
        "'x'.replace('x','xxxxxxxxxx').replace('x','xxxxxxxxxx').replace('x','xxxxxxxxxx').replace('x','xxxxxxxxxx').replace('x','xxxxxxxxxx').replace('x','xxxxxxxxxx').replace('x','xxxxxxxxxx').replace('x','xxxxxxxxxx').replace('x','xxxxxxxxxx')",
        "body.n.all(a, 'x'.matches('a' + string(a)))",
        "body.n.all(a, !glob('a' + string(a), 'x'))",
        "[body.n, body.n, body.n, body.n, body.n, body.n, body.n, body.n, body.n, body.n, body.n, body.n]",
    ] {
        let error = evaluate(source, long.clone()).expect_err(source);
        assert!(error.contains("takes more than"), "{source}: {error}");
    }
    // What a payload needs in earnest is far below the limit.
    let commits: Vec<Json> =
        (0..2048).map(|i| json!({"added": [format!("src/{i}.rs"), "README.md"], "message": "m"})).collect();
    let source = "body.exists(c, c.added.exists(f, glob(['docs/**', '*.toml'], f)))";
    assert_eq!(evaluate(source, json!(commits)), Ok(json!(false)));
}

#[test]
fn the_deepest_expression_fits_a_small_stack() {
    // Evaluations run on threads of 2 MiB, in debug builds too: this test's own.
    let mut source = "1".to_owned();
    let mut deepest = source.clone();
    for _ in 0..200 {
        source = format!("1+{source}").replace("1+1+1+1+", "1+1+(1+1)+");
        if compile(&source, &body()).is_ok() {
            deepest = source.clone();
        }
    }
    for source in [deepest, format!("body{}", ".?a".repeat(20)), format!("body{}", ".a".repeat(40))] {
        let value = from_json(&json!({"a": 1}));
        let expression = compile(&source, &body()).unwrap();
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        let run = move || expression.json(&Variables::default().with("body", &value)).is_ok();
        thread.spawn(run).unwrap().join().unwrap();
    }
}

#[test]
fn deep_json_is_refused_before_it_is_built() {
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(serde_json::from_str::<value::Checked>(&deep).is_err());
    assert!(serde_json::from_str::<value::Parsed>(&deep).is_err());
    for text in ["1e999", "\"\\ud800\"", "{\"a\": }", "[1,]", "{\"a\" 1}", "nul", "\u{feff}1", "1 2", ""] {
        let checked = serde_json::from_str::<value::Checked>(text).is_ok();
        assert_eq!(checked, serde_json::from_str::<value::Parsed>(text).is_ok(), "{text}");
        assert!(!checked, "{text}");
    }
    assert!(serde_json::from_slice::<value::Checked>(b"\"\xff\"").is_err());
    assert!(serde_json::from_str::<value::Checked>("{\"a\": [1, -1, 1.5, \"x\\n\", null, true]}").is_ok());
}

#[test]
fn json_inside_of_a_text_is_read_within_bounds() {
    for (source, problem) in [
        ("json('{')", "this is not JSON"),
        ("json('')", "this is not JSON"),
        ("json(b'\\xff')", "no text"),
        ("json(body.deep)", "this is not JSON"),
    ] {
        let reason = evaluate(source, json!({"deep": "[".repeat(100_000)})).unwrap_err();
        assert!(reason.contains(problem), "{source}: {reason}");
    }
    // Once is well within what a payload may cost; again and again is not.
    let large = json!({"text": json!(vec![7; 100_000]).to_string(), "times": vec![0; 20]});
    assert_eq!(evaluate("json(body.text).size()", large.clone()), Ok(json!(100_000)));
    let begin = Instant::now();
    let reason = evaluate("body.times.map(t, json(body.text)).size()", large).unwrap_err();
    assert!(reason.contains("too much work") || reason.contains("more than"), "{reason}");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

/// Every attack ends as the table says. How long it takes is measured by `make bench`.
#[test]
fn attacks_end_at_a_limit() {
    let mut groups: std::collections::BTreeMap<usize, Vec<attacks::Attack>> = std::collections::BTreeMap::new();
    for attack in attacks::all() {
        groups.entry(attack.payload as usize).or_default().push(attack);
    }
    let wrong = |group: Vec<attacks::Attack>| {
        let payload = from_json(&(group[0].payload)());
        let ends = group.into_iter().map(|attack| {
            let expression = compile(&attack.source, &body()).map_err(|m| format!("{}: {m:?}", attack.name))?;
            let result = expression.json(&Variables::default().with("body", &payload));
            let end = result.map(|_| String::new()).unwrap_or_else(|error| error.reason);
            let as_said = match attack.end {
                attacks::End::Work => end.contains("takes more than"),
                attacks::End::Affordable => end.is_empty() && budget::spent() < budget::LIMIT,
                attacks::End::Fails(why) => !end.is_empty() && end.contains(why),
            };
            let spent = budget::spent();
            if as_said {
                Ok(())
            } else {
                Err(format!("{}: {:?}, but {end:?} with {spent} steps", attack.name, attack.end))
            }
        });
        ends.filter_map(Result::err).collect::<Vec<_>>()
    };
    let wrong: Vec<String> = groups.into_values().flat_map(wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_limit_says_what_was_found_and_what_is_allowed() {
    let long = format!("'{}' == ''", "x".repeat(5000));
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    let tall = vec!["body"; 60].join(" + ");
    let pattern = format!("body.matches('{}')", "a".repeat(1100));
    let large = "body.matches('(a{1,100}){1,100}')";
    for (source, expected) in [
        (long.as_str(), "has 5008 bytes; an expression has at most 4096"),
        (deep.as_str(), "40 brackets inside each other; at most 32"),
        (tall.as_str(), "59 levels; at most 48"),
        (pattern.as_str(), "the regular expression has 1100 bytes; at most 1024"),
        (large, "too large when it is compiled: at most 262144 bytes"),
        (
            "body.all(a, a.all(b, b.all(c, c.all(d, d))))",
            "4 of all, exists, exists_one, filter and map inside each other; in a TriggerPlugin, at most 2",
        ),
    ] {
        let problem = mistake(source);
        assert!(problem.contains(expected), "{problem}");
    }
    let two = "body.all(a, a.all(b, b))";
    assert!(compile(two, &body()).is_ok());
    let problem = compile(two, &body().of_workspace()).unwrap_err().remove(0).problem;
    assert!(
        problem.contains(
            "2 of all, exists, exists_one, filter and map inside each other; in a WorkflowTrigger, at most 1"
        ),
        "{problem}"
    );
    assert!(compile("body.filter(a, a > 1).map(a, a + 1).all(a, a > 1)", &body().of_workspace()).is_ok());
}

#[test]
fn what_an_expression_gives_is_bounded() {
    let text = json!({"s": "x".repeat(5 << 20)});
    let error = evaluate("body.s + body.s", text.clone()).unwrap_err();
    assert!(error.contains("gives more than 8388608 bytes"), "{error}");
    assert!(evaluate("{'a': [body.s]}", text).is_ok());
}

#[test]
fn values_of_a_payload_are_counted_alike_whether_they_are_kept_or_not() {
    let text = r#"{"a": [1, "x", {}], "b": null}"#;
    // Two names; a map, a list with three values, and a null.
    let (kept, found) = value::within(8, || serde_json::from_str::<value::Parsed>(text));
    assert!(kept.is_ok() && found == 8, "{found}");
    let (checked, found) = value::within(8, || serde_json::from_str::<value::Checked>(text));
    assert!(checked.is_ok() && found == 8, "{found}");
    let (kept, found) = value::within(7, || serde_json::from_str::<value::Parsed>(text));
    assert!(kept.is_err() && found == 8, "{found}");
    assert!(value::within(7, || serde_json::from_str::<value::Checked>(text)).0.is_err());
}

#[test]
fn while_a_sender_waits_less_is_done_for_it() {
    let body = json!({"n": vec![7; 30_000]});
    let source = "body.n.exists(a, a < 0)";
    assert_eq!(evaluate(source, body.clone()), Ok(json!(false)));
    let error = sparing(|| evaluate(source, body.clone())).unwrap_err();
    assert!(error.contains("takes more than 100000 steps"), "{error}");
    // Afterwards, and after a panic, there is as much as before.
    let panicked = std::panic::catch_unwind(|| sparing(|| panic!("on purpose")));
    assert!(panicked.is_err() && evaluate(source, body).is_ok());
}
