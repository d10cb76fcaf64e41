//! `guest-sdk/typescript/src/wit.d.ts` is written by hand: it has what `wit/policy.wit` has.

#![allow(clippy::unwrap_used, clippy::panic)] // A test file throughout.

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    fs::read_to_string(root.unwrap().join(path)).unwrap()
}

/// What must stand in the module of an interface.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// A function, in camel case with its parenthesis.
    Function(String),
    /// A field of a record or a flag, in camel case.
    Name(String),
    /// A case of a variant or an enum, in quotes.
    Case(String),
}

/// Makes of a member what is wanted.
type Kind = fn(&str) -> Wanted;

fn camel(name: &str) -> String {
    let mut words = name.trim_start_matches('%').split('-');
    let mut camel = words.next().unwrap().to_owned();
    for word in words {
        camel.push_str(&word[..1].to_uppercase());
        camel.push_str(&word[1..]);
    }
    camel
}

/// The interfaces of the contract that a policy imports, and what each has.
fn contract(wit: &str) -> Vec<(String, Vec<Wanted>)> {
    let mut interfaces: Vec<(String, Vec<Wanted>)> = Vec::new();
    // Of the type that a line stands in.
    let mut within: Option<Kind> = None;
    for line in wit.lines().map(str::trim) {
        if line.starts_with("//") {
            continue;
        }
        let name = |rest: &str| {
            let end = rest.find([' ', '(', ',', ':', '}']).unwrap_or(rest.len());
            rest[..end].to_owned()
        };
        if let Some(rest) = line.strip_prefix("interface ") {
            interfaces.push((name(rest), Vec::new()));
            continue;
        }
        let Some((_, wanted)) = interfaces.last_mut() else {
            continue;
        };
        if let Some((function, _)) = line.split_once(": func(") {
            wanted.push(Wanted::Function(camel(function)));
            continue;
        }
        let kinds: [(&str, Kind); 4] = [
            ("record ", |text| Wanted::Name(camel(text))),
            ("flags ", |text| Wanted::Name(camel(text))),
            ("variant ", |text| Wanted::Case(text.to_owned())),
            ("enum ", |text| Wanted::Case(text.to_owned())),
        ];
        let begun = kinds.iter().find(|(kind, _)| line.starts_with(kind));
        let members = match (begun, line.split_once('{')) {
            (Some((_, kind)), Some((_, members))) => {
                within = Some(*kind);
                members
            }
            _ => line,
        };
        let Some(kind) = within else { continue };
        // `option<list<u8>>, x` splits at commas that separate members only.
        let members = members.split('}').next().unwrap();
        let mut depth = 0;
        let split = members.split(|c: char| {
            depth += i32::from(c == '<' || c == '(') - i32::from(c == '>' || c == ')');
            c == ',' && depth == 0
        });
        for member in split.map(str::trim).filter(|member| !member.is_empty()) {
            wanted.push(kind(&name(member)));
        }
        if line.ends_with('}') {
            within = None;
        }
    }
    let world = wit.split("world policy").nth(1).unwrap();
    interfaces.retain(|(name, _)| name == "types" || world.contains(&format!("import {name};")));
    interfaces
}

fn missing(wit: &str, typescript: &str) -> Vec<String> {
    let mut missing = Vec::new();
    for (interface, wanted) in contract(wit) {
        let head = format!("declare module \"sipbox:policy/{interface}@");
        let Some(module) = typescript.split(&head).nth(1) else {
            missing.push(interface);
            continue;
        };
        let module = module.split("declare module").next().unwrap();
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for wanted in wanted {
            let there = match &wanted {
                Wanted::Function(name) => module.contains(&format!("{name}(")),
                Wanted::Name(name) => module.split(|c| !word(c)).any(|known| known == name),
                Wanted::Case(name) => module.contains(&format!("\"{name}\"")),
            };
            if !there {
                missing.push(format!("{interface}: {wanted:?}"));
            }
        }
    }
    missing
}

#[test]
fn the_types_for_typescript_follow_the_contract() {
    let (wit, typescript) = (
        read("wit/policy.wit"),
        read("guest-sdk/typescript/src/wit.d.ts"),
    );
    assert!(contract(&wit).len() >= 10);
    assert_eq!(missing(&wit, &typescript), [""; 0]);
}

#[test]
fn what_is_missing_is_found() {
    let wit = "interface types {\n record a-b { c-d: list<tuple<string, u8>>, e: u8 }\n\
        variant v { x(option<u8>), y-z }\n flags f {\n one-two,\n /// A comment.\n three,\n }\n}\n\
        interface kv {\n get-it: func(a: string) -> u8;\n}\ninterface other {\n no: func();\n}\n\
        world policy { import kv; }";
    let complete = "declare module \"sipbox:policy/types@0.1.0\" { cD e \"x\" \"y-z\" oneTwo three }\n\
        declare module \"sipbox:policy/kv@0.1.0\" { getIt(a: string): number }";
    assert_eq!(missing(wit, complete), [""; 0]);
    for gone in ["cD", " e ", "\"x\"", "\"y-z\"", "oneTwo", "three", "getIt("] {
        assert_eq!(
            missing(wit, &complete.replace(gone, " ")).len(),
            1,
            "{gone}"
        );
    }
    assert_eq!(missing(wit, ""), ["types", "kv"]);
}
