//! Which names a rule takes, as seen from outside; the patterns' own tests are in `src/pattern.rs`.

use crate::support::{End, Sandbox, Tree, tree};

fn names(names: &[&str]) -> Tree {
    names.iter().map(|name| (*name, "1")).collect()
}

/// What a rule with this `match` takes of these keys.
fn taken(pattern: &str, keys: &[&str]) -> Vec<String> {
    let sandbox = Sandbox::new();
    sandbox.fill(End::S3, "in", &names(keys));
    let src = format!("{{type: s3, path: in, match: {pattern}}}");
    sandbox.rule("r", &format!("src: {src}, dest: {{type: s3, path: out}}"));
    sandbox.run().succeeds();
    let out = sandbox.bucket().tree("out/");
    let left = sandbox.bucket().tree("in/");
    assert_eq!(out.len() + left.len(), keys.len());
    out.names().into_iter().map(str::to_owned).collect()
}

#[test]
fn a_glob_is_for_the_whole_name_and_crosses_slashes() {
    let keys = [
        "a.edi",
        "A.EDI",
        "sub/a.edi",
        "a.edi.tmp",
        "b.edi",
        "[a].edi",
        "{a}.edi",
    ];
    assert_eq!(
        taken("{glob: '*.edi'}", &keys),
        ["[a].edi", "a.edi", "b.edi", "sub/a.edi", "{a}.edi"]
    );
    assert_eq!(taken("{glob: '?.edi'}", &keys), ["a.edi", "b.edi"]);
    assert_eq!(taken("{glob: '[!b].edi'}", &keys), ["a.edi"]);
    assert_eq!(taken("{glob: '{a}.edi'}", &keys), ["{a}.edi"]);
    assert_eq!(taken("{glob: 'sub/*'}", &keys), ["sub/a.edi"]);
}

#[test]
fn a_regex_is_a_search() {
    let keys = ["a.edi", "sub/a.edi", "a.edi.tmp", "b.x12"];
    assert_eq!(
        taken("{regex: 'edi'}", &keys),
        ["a.edi", "a.edi.tmp", "sub/a.edi"]
    );
    assert_eq!(taken("{regex: '^a\\.edi$'}", &keys), ["a.edi"]);
    assert_eq!(
        taken("{regex: '^[^/]*\\.(edi|x12)$'}", &keys),
        ["a.edi", "b.x12"]
    );
}

#[test]
fn max_items_counts_what_matches() {
    let sandbox = Sandbox::new();
    sandbox.fill(
        End::S3,
        "in",
        &names(&["a.tmp", "b.tmp", "c.edi", "d.tmp", "e.edi", "f.edi"]),
    );
    let src = "{type: s3, path: in, match: {glob: '*.edi'}}";
    let rule = format!("src: {src}, dest: {{type: s3, path: out}}, max_items: 2");
    sandbox.rule("r", &rule);
    sandbox.run().succeeds();
    assert_eq!(sandbox.bucket().tree("out/").names(), ["c.edi", "e.edi"]);
}

#[test]
fn defaults_hold_where_a_rule_says_nothing_else() {
    let sandbox = Sandbox::without_minio();
    sandbox
        .default("mode: copy")
        .default("max_items: 1")
        .default("if_exists: skip");
    sandbox.fill(End::File, "in", &tree(&[("a", "1"), ("b", "2")]));
    sandbox.rule(
        "one",
        "src: {type: file, path: in}, dest: {type: file, path: out/one}",
    );
    let rule = "src: {type: file, path: in}, dest: {type: file, path: out/two}, max_items: 2";
    sandbox.rule("two", rule);
    sandbox.run().succeeds();
    assert_eq!(sandbox.files("out/one").len(), 1);
    assert_eq!(sandbox.files("out/two").len(), 2);
    assert_eq!(sandbox.files("in").len(), 2, "copied");
}

#[test]
fn aliases_and_merge_keys_of_yaml_work() {
    let sandbox = Sandbox::without_minio();
    for name in ["one", "two"] {
        sandbox.write(format!("{name}/a"), name);
    }
    let base = sandbox.base().display().to_string();
    let text = format!(
        "config:\n  defaults: {{base_file_path: {base}}}\n  one: &one\n    mode: copy\n    \
         src: {{type: file, path: one}}\n    dest: &dest {{type: file, path: out/1}}\n  two:\n    \
         <<: *one\n    src: {{type: file, path: two}}\n    dest: {{<<: *dest, path: out/2}}\n"
    );
    sandbox
        .call_with_stdin(&["--config", "-"], &text)
        .succeeds();
    assert_eq!(
        sandbox.files("out"),
        tree(&[("1/a", "one"), ("2/a", "two")])
    );
    assert_eq!(sandbox.files("two").len(), 1, "the mode was merged");
}

#[test]
fn a_rule_name_that_is_a_number_is_its_text() {
    let sandbox = Sandbox::without_minio();
    sandbox.write("in/a", "1");
    sandbox.rule(
        "850",
        "src: {type: file, path: in}, dest: {type: file, path: out}",
    );
    sandbox
        .run_with(&["--rule", "850"])
        .succeeds()
        .logs("moved", &[("rule", "850")]);
}
