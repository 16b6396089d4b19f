//! Our tables against a `drbd_genl.h`: of the kernel's headers for 8.4, of drbd-headers for 9. Give its path as `DRBD_GENL_H`.
//!
//! Of each field in the header a value of the header's type is made. All together must be read, be known, and come back; each field's
//! name must end with ours, since ours leave the prefix of their struct out.

use std::{env, fs};

use drbd_nl::{
    Command, Dialect, Packet,
    wire::{Attr, NLM_F_REQUEST},
};

/// Names that two structs of different versions share: ours tell the version.
const RENAMED: [(&str, &str); 4] = [
    ("max_buffers", "max_buffers_84"),
    ("unplug_watermark", "unplug_watermark_84"),
    ("assume_uptodate", "force"),
    ("p_reset_bitmap", "reset_bitmap"),
];

struct Nest {
    number: u16,
    fields: Vec<Field>,
}

struct Field {
    number: u16,
    kind: String,
    name: String,
}

#[test]
#[ignore = "needs a header: DRBD_GENL_H=FILE cargo test -p drbd-nl --test header -- --ignored"]
fn every_field_of_the_header_is_known_by_number_type_and_name() {
    let path = env::var("DRBD_GENL_H").expect("DRBD_GENL_H");
    let nests = nests(&fs::read_to_string(path).unwrap());
    assert!(nests.len() > 15);
    let attrs: Vec<Attr> = nests.iter().map(|nest| Attr { kind: 0x8000 | nest.number, value: value(nest) }).collect();
    let packet = Packet { command: Command(0), version: 1, reserved: NLM_F_REQUEST, minor: 0, code: 0, attrs };
    for dialect in [Dialect::V84, Dialect::V9] {
        let contents = packet.contents(dialect).unwrap();
        let shown = format!("{contents:?}");
        assert!(!shown.contains("Attr("), "{shown}");
        let mut back = Packet::request(packet.command, 0, &contents, dialect).attrs;
        back.sort_by_key(Attr::number);
        let mut sent = packet.attrs.clone();
        sent.sort_by_key(Attr::number);
        assert_eq!(back, sent);
        names_are_ours(&nests, &shown);
    }
}

fn names_are_ours(nests: &[Nest], shown: &str) {
    for field in nests.iter().flat_map(|nest| &nest.fields) {
        let renamed = RENAMED.iter().filter(|(theirs, _)| *theirs == field.name).map(|(_, ours)| *ours);
        let suffixes = field.name.match_indices('_').map(|(at, _)| &field.name[at + 1..]);
        let mut names = suffixes.chain([field.name.as_str()]).chain(renamed);
        assert!(names.any(|name| shown.contains(&format!(" {name}: "))), "{} is called otherwise", field.name);
    }
}

/// A nest with all its fields, in order of their numbers.
fn value(nest: &Nest) -> Vec<u8> {
    let mut fields: Vec<&Field> = nest.fields.iter().collect();
    fields.sort_by_key(|field| field.number);
    let mut bytes = Vec::new();
    for field in fields {
        let value = match field.kind.as_str() {
            "u32" | "s32" => vec![1, 0, 0, 0],
            "u64" => vec![1; 8],
            "flg" | "u8" => vec![1],
            "str" => b"x\0".to_vec(),
            "bin" => vec![1; 16],
            kind => panic!("{kind}"),
        };
        Attr { kind: field.number, value }.emit(&mut bytes);
    }
    bytes
}

/// The `GENL_struct` blocks; lines in comments are fields of the past.
fn nests(header: &str) -> Vec<Nest> {
    let code = without_comments(header);
    let blocks = code.split("GENL_struct(").skip(1);
    blocks.filter(|block| block.trim_start().starts_with("DRBD_NLA_")).map(nest).collect()
}

fn nest(block: &str) -> Nest {
    let number = block.split(',').nth(1).unwrap().trim().parse().unwrap();
    let block = block.split("GENL_").next().unwrap_or_default(); // up to what follows
    Nest { number, fields: block.split("__").filter_map(field).collect() }
}

/// `u32_field(6, FLAGS, ctx_peer_node_id)` or `u32_field_def(…, DEFAULT)`.
fn field(text: &str) -> Option<Field> {
    let (kind, rest) = text.split_once("_field")?;
    let arguments = rest.trim_start_matches("_def").trim().strip_prefix('(')?;
    let mut arguments = arguments.split([',', ')']).map(str::trim);
    let number = arguments.next()?.parse().ok()?;
    let name = arguments.nth(1)?.to_owned();
    Some(Field { number, kind: kind.to_owned(), name })
}

fn without_comments(text: &str) -> String {
    let mut parts = text.split("/*");
    let mut code = parts.next().unwrap_or_default().to_owned();
    parts.filter_map(|part| part.split_once("*/")).for_each(|(_, after)| code.push_str(after));
    code
}
