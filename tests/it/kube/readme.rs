//! kube/README.md names what is there and runs what the program knows.

use std::fs;

use serde_json::Value;

use super::{Kube, VALIDATOR, only, root};
use crate::support::Sandbox;

#[test]
fn the_readme_names_only_files_that_are_there() {
    let text = Kube::new().read("README.md");
    let mut seen = 0;
    for word in text.split(|c: char| c.is_whitespace() || "`\"'()<>;:".contains(c)) {
        let word = word.trim_end_matches([',', '.']);
        let places = match word {
            // An object, not a file.
            word if word.starts_with("job/bots-mover") || word == "job/$job" => continue,
            word if word.starts_with("kube/") => vec![word.to_owned()],
            word if word.ends_with("_patch.yaml") && !word.contains('/') => {
                ["dev", "staging", "prod"]
                    .map(|environment| format!("kube/overlays/{environment}/{word}"))
                    .to_vec()
            }
            word if [
                "base/",
                "overlays/",
                "components/",
                "gitops/",
                "job/",
                "run/",
            ]
            .iter()
            .any(|folder| word.starts_with(folder)) =>
            {
                vec![format!("kube/{word}")]
            }
            _ => continue,
        };
        for place in places {
            let place = place
                .replace("$environment", "dev")
                .replace("*.json", "volume.json");
            assert!(root().join(&place).exists(), "{word}: no {place}");
            seen += 1;
        }
    }
    assert!(seen > 30, "only {seen}");
}

#[test]
fn the_readme_runs_this_version_with_arguments_that_it_knows() {
    let help = Sandbox::without_minio().call(&["--help"]).stdout;
    let kube = Kube::new();
    let image = concat!("image=localhost/bots-mover:", env!("CARGO_PKG_VERSION"));
    assert_eq!(kube.command("image=localhost"), image);
    let runs = kube.commands("kubectl run bots-mover-once ");
    assert_eq!(runs.len(), 3);
    for line in runs {
        let (kubectl, program) = line.split_once(" -- ").expect("arguments for the program");
        // An image that is still to be pulled takes longer than the minute that kubectl gives it.
        for part in [
            "--image=\"$image\" ",
            "--namespace \"$namespace\" ",
            "--pod-running-timeout=5m",
        ] {
            assert!(kubectl.contains(part), "{part}: {line}");
        }
        let mut words = program.split_whitespace();
        let first = words.next().unwrap();
        assert!(
            first == "--config" || help.contains(&format!("bots-mover {first}")),
            "{line}"
        );
        for flag in words.filter(|word| word.starts_with("--")) {
            assert!(help.contains(flag), "{flag}: {line}");
        }
    }
}

/// An environment is chosen once, at the top: a command that names one of its own would do its work
/// in another one than the reader's.
#[test]
fn no_command_names_an_environment() {
    let kube = Kube::new();
    let mut seen = 0;
    for line in kube.commands("kubectl ") {
        let words: Vec<&str> = line.split_whitespace().collect();
        for pair in words.windows(2).filter(|pair| pair[0] == "--namespace") {
            assert!(pair[1].starts_with("\"$namespace\""), "{line}");
            seen += 1;
        }
        assert!(!line.contains("kube/overlays/dev"), "{line}");
        assert!(!line.contains("kube/overlays/prod"), "{line}");
    }
    assert!(seen > 10, "only {seen}");
}

#[test]
fn every_command_can_be_given_twice() {
    let kube = Kube::new();
    let jobs = kube.commands("kubectl create job");
    assert_eq!(jobs.len(), 3);
    for line in jobs {
        let named = line.contains("create job \"$job\"") || line.contains("-$(date +%s)\"");
        assert!(named, "the second time the name is taken: {line}");
    }
    for line in kube.commands("job=") {
        assert!(line.ends_with("-$(date +%s)\""), "{line}");
    }
}

/// A pod's first connection can be refused until its NetworkPolicy is in force.
#[test]
fn every_example_tries_again() {
    let kube = Kube::new();
    let text = kube.read("README.md");
    let blocks = text.split("```yaml\n").skip(1);
    let blocks = blocks.filter_map(|block| block.split("```").next());
    let mut configs: Vec<String> = blocks
        .filter(|block| block.starts_with("config:"))
        .map(str::to_owned)
        .collect();
    assert!(!configs.is_empty());
    configs.extend(["base/config.yaml", "job/config.yaml"].map(|file| kube.read(file)));
    for config in configs {
        let parsed: Value = serde_yaml::from_str(&config).unwrap();
        let retries = &parsed["config"]["defaults"]["retries"];
        assert_eq!(retries, 2, "{config}");
    }
    for line in kube.commands("kubectl run bots-mover-once ") {
        let has_rules = line.contains(" -- --config ");
        assert!(has_rules || line.contains(" --retries 2"), "{line}");
    }
}

/// The schedule does not begin before all is checked.
#[test]
fn the_first_time_the_cronjob_is_suspended() {
    let kube = Kube::new();
    let file = "overlays/dev/schedule_patch.yaml";
    let before = kube.read(file);
    assert_eq!(kube.shell(&kube.command("printf '  suspend: true")), "");
    let suspended = kube.render("overlays/dev");
    assert_eq!(only(&suspended, "CronJob")["spec"]["suspend"], true);
    assert_eq!(kube.shell(&kube.command("sed --in-place '/^  suspend")), "");
    assert_eq!(kube.read(file), before);
}

/// With an empty name every ConfigMap would be another one, and removed.
#[test]
fn tidying_up_removes_nothing_where_no_cronjob_is_found() {
    let kube = Kube::new();
    let tidy_up = |found: &str| {
        let find = kube.command("current=");
        let remove = kube.command("kubectl delete configmap");
        kube.shell(&format!(
            "kubectl() {{ if [[ $1 == get ]]; then printf %s '{found}'; else echo ran: $*; fi; }}\n\
             {find}\n{remove}"
        ))
    };
    let said = tidy_up("bots-mover-1");
    assert!(said.contains("ran: delete configmap"), "{said}");
    assert!(said.contains("metadata.name!=bots-mover-1"), "{said}");
    let said = tidy_up("");
    assert!(!said.contains("ran:"), "{said}");
}

#[test]
fn the_build_installs_the_validator_that_the_tests_ask_for() {
    let script = fs::read_to_string(root().join(".ci/tools.sh")).unwrap();
    assert!(
        script.contains(VALIDATOR),
        ".ci/tools.sh does not have {VALIDATOR}"
    );
}
