//! The manifests of kube/ keep what kube/README.md promises: they are rendered as `kubectl apply
//! --kustomize` would, and looked at object by object. No cluster is needed.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde::Deserialize as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::Sandbox;

/// The environments: name, namespace, schedule, its period in seconds.
const ENVIRONMENTS: [(&str, &str, &str, u64); 3] = [
    ("dev", "edi-dev", "* * * * *", 60),
    ("staging", "edi-staging", "*/5 * * * *", 300),
    ("prod", "edi", "*/5 * * * *", 300),
];

/// The oldest and the newest Kubernetes that the manifests are for.
const KUBERNETES: [&str; 2] = ["1.29", "1.37"];

/// What `pip install` takes; it has the schemas of both.
const VALIDATOR: &str = "kubernetes-validate==1.37.0";

const CLAIM: &str = "bots-edi-data-pvc";
const MOUNT: &str = "/home/bots/.bots";

/// What the program may use of memory (resident, at default concurrency).
const PROGRAM_MIB: u64 = 16;

// --- schemas ---

#[test]
fn all_objects_fit_the_oldest_and_the_newest_kubernetes() {
    for version in KUBERNETES {
        if let Err(problems) = validate(version, all_objects()) {
            panic!("Kubernetes {version}:\n{problems}");
        }
    }
}

#[test]
fn a_misspelt_key_does_not_fit() {
    let kube = Kube::new();
    kube.edit("base/cronjob.yaml", "backoffLimit", "backofLimit");
    let objects = [("base".to_owned(), kube.render("base"))];
    for version in KUBERNETES {
        let problems = validate(version, &objects).unwrap_err();
        assert!(problems.contains("backofLimit"), "{problems}");
    }
}

// --- pods ---

#[test]
fn every_pod_fits_the_restricted_profile() {
    for (what, pod) in all_pods() {
        let same = |pointer: &str, value: Value| {
            assert_eq!(pod.pointer(pointer), Some(&value), "{what}: {pointer}");
        };
        same("/securityContext/runAsNonRoot", json!(true));
        same("/securityContext/runAsUser", json!(1000));
        same("/securityContext/runAsGroup", json!(1000));
        same("/securityContext/fsGroup", json!(1000));
        let policy = json!("OnRootMismatch");
        same("/securityContext/fsGroupChangePolicy", policy);
        let profile = json!("RuntimeDefault");
        same("/securityContext/seccompProfile/type", profile);
        let container = "/containers/0/securityContext";
        same(
            container,
            json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
            }),
        );
        assert_eq!(list(&pod, "/containers").len(), 1, "{what}");
        for absent in [
            "hostNetwork",
            "hostPID",
            "hostIPC",
            "initContainers",
            "serviceAccountName",
        ] {
            assert_eq!(pod.get(absent), None, "{what}: {absent}");
        }
        for volume in list(&pod, "/volumes") {
            let kind = volume
                .as_object()
                .unwrap()
                .keys()
                .find(|key| *key != "name");
            let kind = kind.expect("a volume is of some kind");
            let restricted = ["configMap", "emptyDir", "persistentVolumeClaim"];
            assert!(restricted.contains(&kind.as_str()), "{what}: {volume}");
        }
    }
}

#[test]
fn every_pod_is_told_nothing_of_the_cluster() {
    for (what, pod) in all_pods() {
        for key in ["automountServiceAccountToken", "enableServiceLinks"] {
            assert_eq!(pod.get(key), Some(&json!(false)), "{what}: {key}");
        }
    }
}

#[test]
fn every_pod_stages_on_disk_within_a_limit() {
    for (what, pod) in all_pods() {
        let staging = named(&pod, "/volumes", "staging");
        assert_eq!(staging.pointer("/emptyDir/medium"), None, "{what}");
        let limit = staging.pointer("/emptyDir/sizeLimit");
        assert!(limit.is_some_and(Value::is_string), "{what}: {staging}");
        let mount = named(&pod, "/containers/0/volumeMounts", "staging");
        assert_eq!(mount["mountPath"], "/tmp", "{what}");
    }
}

#[test]
fn every_pod_has_memory_to_spare_and_fits_a_small_node() {
    for (what, pod) in all_pods() {
        let mebibytes = |pointer: &str| -> u64 {
            let text = pod.pointer(pointer).and_then(Value::as_str);
            let number = text.and_then(|text| text.strip_suffix("Mi"));
            number
                .unwrap_or_else(|| panic!("{what}: {pointer}"))
                .parse()
                .unwrap()
        };
        let request = mebibytes("/containers/0/resources/requests/memory");
        let limit = mebibytes("/containers/0/resources/limits/memory");
        assert!((PROGRAM_MIB..=32).contains(&request), "{what}: {request}");
        assert!((4 * PROGRAM_MIB..=128).contains(&limit), "{what}: {limit}");
        let cpu = pod.pointer("/containers/0/resources/requests/cpu");
        assert!(cpu.is_some(), "{what}");
    }
}

#[test]
fn every_pod_shares_what_it_makes_with_the_group_and_knows_its_time_zone() {
    for (what, pod) in all_pods() {
        for (name, value) in [("BOTS_MOVER_UMASK", "0002"), ("TZ", "UTC")] {
            let variable = named(&pod, "/containers/0/env", name);
            assert_eq!(variable["value"], value, "{what}");
        }
    }
}

#[test]
fn every_pod_has_time_to_stop_and_its_last_words_are_kept() {
    for (what, pod) in all_pods() {
        assert_eq!(pod["terminationGracePeriodSeconds"], 30, "{what}");
        let container = &pod["containers"][0];
        assert_eq!(
            container["terminationMessagePath"], "/dev/termination-log",
            "{what}"
        );
        assert_eq!(
            container["terminationMessagePolicy"], "FallbackToLogsOnError",
            "{what}"
        );
    }
}

// --- jobs ---

#[test]
fn environments_are_those_of_bots() {
    let kube = Kube::new();
    for (environment, namespace, schedule, _) in ENVIRONMENTS {
        let objects = kube.render(&format!("overlays/{environment}"));
        for object in &objects {
            assert_eq!(
                object["metadata"]["namespace"], namespace,
                "{environment}: {object}"
            );
        }
        let cronjob = only(&objects, "CronJob");
        assert_eq!(cronjob["spec"]["schedule"], schedule, "{environment}");
        let pod = pod_of(cronjob).unwrap();
        let mount = named(&pod, "/containers/0/volumeMounts", "bots");
        assert_eq!(mount["mountPath"], MOUNT, "{environment}");
        assert_eq!(claim(&pod), CLAIM, "{environment}");
    }
}

#[test]
fn runs_never_overlap_and_always_come_to_an_end() {
    let kube = Kube::new();
    for (environment, _, _, period_secs) in ENVIRONMENTS {
        let objects = kube.render(&format!("overlays/{environment}"));
        let spec = &only(&objects, "CronJob")["spec"];
        assert_eq!(spec["concurrencyPolicy"], "Forbid", "{environment}");
        let start = spec["startingDeadlineSeconds"].as_u64().unwrap();
        // The controller looks every ten seconds.
        assert!((11..period_secs).contains(&start), "{environment}: {start}");
        for limit in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
            assert!(
                spec[limit].as_u64().is_some_and(|limit| limit > 0),
                "{environment}"
            );
        }
        let job = &spec["jobTemplate"]["spec"];
        for limit in ["activeDeadlineSeconds", "ttlSecondsAfterFinished"] {
            assert!(
                job[limit].as_u64().is_some_and(|limit| limit > 0),
                "{environment}"
            );
        }
        assert_eq!(
            job["template"]["spec"]["restartPolicy"], "Never",
            "{environment}"
        );
    }
}

#[test]
fn a_wrong_config_fails_at_once_and_a_disruption_is_no_failure() {
    for (what, objects) in all_objects() {
        for object in objects {
            let Some(job) = job_of(object) else { continue };
            assert!(
                job["backoffLimit"].as_u64().is_some_and(|limit| limit > 0),
                "{what}"
            );
            let rules = json!([
                {
                    "action": "FailJob",
                    "onExitCodes": {
                        "containerName": "bots-mover", "operator": "In", "values": [2]
                    },
                },
                {
                    "action": "Ignore",
                    "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }],
                },
            ]);
            assert_eq!(job["podFailurePolicy"]["rules"], rules, "{what}");
            assert_eq!(
                job["template"]["spec"]["containers"][0]["name"],
                "bots-mover"
            );
        }
    }
}

#[test]
fn the_job_is_the_cronjob_with_other_rules() {
    let kube = Kube::new();
    for (environment, namespace, _, _) in ENVIRONMENTS {
        kube.edit(
            "job/kustomization.yaml",
            "overlays/dev",
            &format!("overlays/{environment}"),
        );
        let objects = kube.render("job");
        assert!(objects.iter().all(|object| object["kind"] != "CronJob"));
        let job = only(&objects, "Job");
        assert_eq!(job["metadata"]["namespace"], namespace);
        let environment_objects = kube.render(&format!("overlays/{environment}"));
        let cronjob = only(&environment_objects, "CronJob");
        let ours = config_map_of(&pod_of(job).unwrap());
        let theirs = config_map_of(&pod_of(cronjob).unwrap());
        assert_ne!(ours, theirs, "the Job has rules of its own");
        let renamed = job["spec"].to_string().replace(&ours, &theirs);
        assert_eq!(renamed, job_of(cronjob).unwrap().to_string());
        kube.edit(
            "job/kustomization.yaml",
            &format!("overlays/{environment}"),
            "overlays/dev",
        );
    }
}

#[test]
fn a_pod_from_the_command_line_is_like_one_of_the_cronjob() {
    let objects = Kube::new().render("base");
    let pod = pod_of(only(&objects, "CronJob")).unwrap();
    for (file, overrides) in run_overrides() {
        let labels = &overrides["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/name"], "bots-mover", "{file}");
        let spec = overrides["spec"].as_object().unwrap();
        for (key, value) in spec {
            match key.as_str() {
                "containers" | "volumes" => {}
                _ => assert_eq!(value, &pod[key], "{file}: {key}"),
            }
        }
        for volume in list(&overrides["spec"], "/volumes") {
            let name = volume["name"].as_str().unwrap();
            assert_eq!(volume, named(&pod, "/volumes", name), "{file}");
        }
        let container = overrides["spec"]["containers"][0].as_object().unwrap();
        for (key, value) in container {
            match key.as_str() {
                "name" => assert_eq!(value, "bots-mover-once", "{file}"),
                "workingDir" => assert_eq!(value, MOUNT, "{file}"),
                "volumeMounts" => {
                    for mount in value.as_array().unwrap() {
                        let name = mount["name"].as_str().unwrap();
                        let theirs = named(&pod, "/containers/0/volumeMounts", name);
                        assert_eq!(mount, &theirs, "{file}");
                    }
                }
                _ => assert_eq!(value, &pod["containers"][0][key], "{file}: {key}"),
            }
        }
    }
}

// --- config, claim, image ---

#[test]
fn a_changed_config_rolls_out_under_a_new_name() {
    let kube = Kube::new();
    let place = kube.overlay_with("prod", &["private-ca", "shards"]);
    let name_of = |objects: &[Value]| {
        let name = only(objects, "ConfigMap")["metadata"]["name"]
            .as_str()
            .unwrap()
            .to_owned();
        let pods: Vec<Value> = objects.iter().filter_map(pod_of).collect();
        assert_eq!(pods.len(), 2);
        for pod in pods {
            assert_eq!(config_map_of(&pod), name);
        }
        name
    };
    let before = name_of(&kube.render(&place));
    assert_eq!(
        name_of(&kube.render(&place)),
        before,
        "the same config, the same name"
    );
    kube.edit("base/config.yaml", "retries: 2", "retries: 3");
    let after = name_of(&kube.render(&place));
    assert_ne!(before, after);
    assert!(after.starts_with("bots-mover-"), "{after}");
}

#[test]
fn the_rules_are_read_where_they_are_mounted_and_lie_on_the_volume() {
    let kube = Kube::new();
    let objects = kube.render("base");
    let config = &only(&objects, "ConfigMap")["data"];
    let keys: Vec<&String> = config.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["config.yaml"]);
    for file in ["base/config.yaml", "job/config.yaml"] {
        let config: Value = serde_yaml::from_str(&kube.read(file)).unwrap();
        let base = &config["config"]["defaults"]["base_file_path"];
        assert_eq!(base, MOUNT, "{file}");
    }
    for (what, pod) in all_pods() {
        let mounts = list(&pod, "/containers/0/volumeMounts");
        if let Some(mount) = mounts.iter().find(|mount| mount["name"] == "config") {
            // The default of --config is /config/config.yaml.
            assert_eq!(mount["mountPath"], "/config", "{what}");
            assert_eq!(mount["readOnly"], true, "{what}");
        }
    }
}

#[test]
fn the_rules_are_accepted_by_the_program() {
    let kube = Kube::new();
    let sandbox = Sandbox::without_minio();
    for file in ["base/config.yaml", "job/config.yaml"] {
        let path = kube.path(file);
        sandbox
            .call(&["check".as_ref(), "--config".as_ref(), path.as_os_str()])
            .exits(0);
    }
}

#[test]
fn the_claim_is_named_in_one_place_of_an_environment() {
    let kube = Kube::new();
    for (environment, ..) in ENVIRONMENTS {
        let place = kube.overlay_with(environment, &["private-ca", "shards"]);
        kube.edit(
            &format!("{place}/volume_patch.yaml"),
            CLAIM,
            "another-claim",
        );
        kube.edit("job/kustomization.yaml", "overlays/dev", &place);
        let mut pods = 0;
        for objects in [kube.render(&place), kube.render("job")] {
            for pod in objects.iter().filter_map(pod_of) {
                assert_eq!(claim(&pod), "another-claim", "{environment}");
                pods += 1;
            }
        }
        assert_eq!(pods, 3, "two CronJobs and a Job");
        kube.edit("job/kustomization.yaml", &place, "overlays/dev");
    }
}

#[test]
fn the_image_is_of_this_version_and_of_no_public_registry() {
    let image = concat!("localhost/bots-mover:", env!("CARGO_PKG_VERSION"));
    for (what, pod) in all_pods() {
        let found = &pod["containers"][0]["image"];
        assert_eq!(found, image, "{what}");
        assert_eq!(
            pod["containers"][0]["imagePullPolicy"], "IfNotPresent",
            "{what}"
        );
    }
}

// --- secrets and network ---

#[test]
fn no_credential_is_in_any_object() {
    for (what, objects) in all_objects() {
        for object in objects {
            if what == "secret.example.yaml" {
                continue;
            }
            assert_ne!(object["kind"], "Secret", "{what}");
            let text = object.to_string();
            for word in [
                "MINIO_ACCESS_KEY",
                "MINIO_SECRET_KEY",
                "MINIO_SESSION_TOKEN",
            ] {
                assert!(!text.contains(word), "{what}: {word}");
            }
        }
    }
    for (what, pod) in all_pods() {
        let from = json!([{ "secretRef": { "name": "bots-mover" } }]);
        assert_eq!(pod["containers"][0]["envFrom"], from, "{what}");
    }
}

#[test]
fn the_example_of_a_secret_holds_what_a_run_needs_and_nothing_real() {
    let secret = &documents(&Kube::new().read("secret.example.yaml"))[0];
    assert_eq!(secret["metadata"]["name"], "bots-mover");
    let values = secret["stringData"].as_object().unwrap();
    let names: Vec<&String> = values.keys().collect();
    assert_eq!(
        names,
        ["MINIO_ACCESS_KEY", "MINIO_ENDPOINT", "MINIO_SECRET_KEY"]
    );
    for key in ["MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"] {
        assert_eq!(values[key], "PLACEHOLDER");
    }
}

#[test]
fn pods_reach_dns_and_minio_and_nobody_reaches_them() {
    let kube = Kube::new();
    for (environment, ..) in ENVIRONMENTS {
        let objects = kube.render(&kube.overlay_with(environment, &["shards"]));
        let policies: Vec<&Value> = of_kind(&objects, "NetworkPolicy").collect();
        let mut ports = Vec::new();
        for policy in &policies {
            let spec = &policy["spec"];
            assert_eq!(spec.get("ingress"), None, "{environment}");
            for rule in list(spec, "/egress") {
                assert!(
                    !list(&rule, "/to").is_empty(),
                    "{environment}: anywhere: {rule}"
                );
                let found = list(&rule, "/ports");
                ports.extend(found.iter().map(|port| port["port"].as_u64().unwrap()));
            }
            let selected = &spec["podSelector"]["matchLabels"];
            for (what, labels) in objects.iter().filter_map(pod_labels) {
                assert_eq!(labels, selected, "{environment}: {what}");
            }
        }
        ports.sort_unstable();
        assert_eq!(ports, [53, 53, 9000], "{environment}");
        let closed = policies
            .iter()
            .any(|policy| policy["spec"]["policyTypes"] == json!(["Ingress", "Egress"]));
        assert!(closed, "{environment}: nothing forbids what is not listed");
    }
}

// --- components ---

#[test]
fn a_private_ca_is_mounted_and_the_program_told() {
    let kube = Kube::new();
    let objects = kube.render(&kube.overlay_with("prod", &["private-ca"]));
    let pod = pod_of(only(&objects, "CronJob")).unwrap();
    let verify = named(&pod, "/containers/0/env", "MINIO_VERIFY");
    let mount = named(&pod, "/containers/0/volumeMounts", "ca");
    let directory = mount["mountPath"].as_str().unwrap();
    assert_eq!(verify["value"], format!("{directory}/ca.crt"));
    assert_eq!(
        named(&pod, "/volumes", "ca")["configMap"]["name"],
        "bots-mover-ca"
    );
    // What was there stays.
    named(&pod, "/containers/0/env", "BOTS_MOVER_UMASK");
    named(&pod, "/containers/0/volumeMounts", "staging");
}

#[test]
fn shards_are_alike_and_leave_out_no_rule() {
    let kube = Kube::new();
    let objects = kube.render(&kube.overlay_with("prod", &["shards"]));
    let mut rules = Vec::new();
    let mut bare = Vec::new();
    for cronjob in of_kind(&objects, "CronJob") {
        let mut spec = cronjob["spec"].clone();
        let container = &mut spec["jobTemplate"]["spec"]["template"]["spec"]["containers"][0];
        let args = container.as_object_mut().unwrap().remove("args").unwrap();
        for pair in args.as_array().unwrap().chunks(2) {
            assert_eq!(pair[0], "--rule");
            rules.push(pair[1].as_str().unwrap().to_owned());
        }
        bare.push(spec);
    }
    assert_eq!(bare.len(), 2);
    assert_eq!(bare[0], bare[1]);
    let config: Value = serde_yaml::from_str(&kube.read("base/config.yaml")).unwrap();
    let all = config["config"].as_object().unwrap().keys();
    let mut all: Vec<&String> = all.filter(|name| *name != "defaults").collect();
    all.sort();
    rules.sort();
    assert_eq!(all, rules.iter().collect::<Vec<_>>());
}

#[test]
fn the_job_runs_all_its_rules_also_beside_shards() {
    let kube = Kube::new();
    let place = kube.overlay_with("dev", &["shards"]);
    kube.edit("job/kustomization.yaml", "overlays/dev", &place);
    let objects = kube.render("job");
    let pod = pod_of(only(&objects, "Job")).unwrap();
    assert_eq!(pod["containers"][0].get("args"), None);
    assert!(of_kind(&objects, "CronJob").next().is_none());
}

// --- the README ---

#[test]
fn the_readme_names_only_files_that_are_there() {
    let text = Kube::new().read("README.md");
    let mut seen = 0;
    for word in text.split(|c: char| c.is_whitespace() || "`\"'()<>;:".contains(c)) {
        let word = word.trim_end_matches([',', '.']);
        let places = match word {
            // An object, not a file.
            word if word.starts_with("job/bots-mover") => continue,
            word if word.starts_with("kube/") => vec![word.to_owned()],
            word if word.ends_with("_patch.yaml") && !word.contains('/') => {
                ["dev", "staging", "prod"]
                    .map(|environment| format!("kube/overlays/{environment}/{word}"))
                    .to_vec()
            }
            word if ["base/", "overlays/", "components/", "job/", "run/"]
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
    let text = Kube::new().read("README.md");
    let image = concat!("--image=localhost/bots-mover:", env!("CARGO_PKG_VERSION"));
    let mut seen = 0;
    for line in text
        .lines()
        .filter(|line| line.trim().starts_with("kubectl run "))
    {
        let (kubectl, program) = line.split_once(" -- ").expect("arguments for the program");
        assert!(kubectl.contains(image), "{line}");
        let mut words = program.split_whitespace();
        let first = words.next().unwrap();
        assert!(
            first == "--config" || help.contains(&format!("bots-mover {first}")),
            "{line}"
        );
        for flag in words.filter(|word| word.starts_with("--")) {
            assert!(help.contains(flag), "{flag}: {line}");
        }
        seen += 1;
    }
    assert_eq!(seen, 4);
}

#[test]
fn the_build_installs_the_validator_that_the_tests_ask_for() {
    let script = fs::read_to_string(root().join(".ci/tools.sh")).unwrap();
    assert!(
        script.contains(VALIDATOR),
        ".ci/tools.sh does not have {VALIDATOR}"
    );
}

// --- what is looked at ---

/// Everything that kube/ has, under names for people; rendered once.
fn all_objects() -> &'static [(String, Vec<Value>)] {
    static ALL: OnceLock<Vec<(String, Vec<Value>)>> = OnceLock::new();
    ALL.get_or_init(|| {
        let kube = Kube::new();
        let mut places = vec!["base".to_owned(), "job".to_owned()];
        for (environment, ..) in ENVIRONMENTS {
            places.push(format!("overlays/{environment}"));
            places.push(kube.overlay_with(environment, &["private-ca"]));
            places.push(kube.overlay_with(environment, &["shards"]));
            places.push(kube.overlay_with(environment, &["private-ca", "shards"]));
        }
        let mut all: Vec<_> = places
            .into_iter()
            .map(|place| (place.clone(), kube.render(&place)))
            .collect();
        let example = kube.read("secret.example.yaml");
        all.push(("secret.example.yaml".to_owned(), documents(&example)));
        for (file, pod) in run_overrides() {
            all.push((file, vec![as_run_makes_it(pod)]));
        }
        all
    })
}

/// Every pod that any of it leads to.
fn all_pods() -> Vec<(String, Value)> {
    let pods: Vec<_> = all_objects()
        .iter()
        .flat_map(|(what, objects)| {
            let pods = objects.iter().filter_map(pod_of);
            pods.map(move |pod| (what.clone(), pod))
        })
        .collect();
    assert!(pods.len() > 10, "only {} pods", pods.len());
    pods
}

/// What `kubectl run --overrides` is given.
fn run_overrides() -> Vec<(String, Value)> {
    let kube = Kube::new();
    ["run/buckets.json", "run/volume.json"]
        .map(|file| {
            (
                file.to_owned(),
                serde_json::from_str(&kube.read(file)).unwrap(),
            )
        })
        .to_vec()
}

/// Adds what `kubectl run NAME --image=… --restart=Never` says itself.
fn as_run_makes_it(mut pod: Value) -> Value {
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!("bots-mover-once");
    pod["spec"]["restartPolicy"] = json!("Never");
    let image = concat!("localhost/bots-mover:", env!("CARGO_PKG_VERSION"));
    pod["spec"]["containers"][0]["image"] = json!(image);
    pod
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A copy of kube/ to change and render.
struct Kube {
    directory: TempDir,
}

impl Kube {
    fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("bots-mover-kube-")
            .tempdir();
        let directory = directory.expect("a temporary directory");
        copy(&root().join("kube"), directory.path());
        Self { directory }
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.directory.path().join(relative)
    }

    fn read(&self, relative: &str) -> String {
        fs::read_to_string(self.path(relative)).unwrap()
    }

    /// Replaces a text that must be there.
    fn edit(&self, relative: &str, old: &str, new: &str) {
        let text = self.read(relative);
        assert!(text.contains(old), "{relative} has no {old:?}");
        fs::write(self.path(relative), text.replace(old, new)).unwrap();
    }

    /// A copy of an environment that adds components, as the README says to; gives its path.
    fn overlay_with(&self, environment: &str, components: &[&str]) -> String {
        let place = format!("overlays/{environment}-{}", components.join("-"));
        let from = self.path(&format!("overlays/{environment}"));
        copy(&from, &self.path(&place));
        let file = format!("{place}/kustomization.yaml");
        let components: Vec<String> = components
            .iter()
            .map(|component| format!("../../components/{component}"))
            .collect();
        let line = format!("components: [{}]\n", components.join(", "));
        fs::write(self.path(&file), self.read(&file) + &line).unwrap();
        place
    }

    /// The objects of a kustomization.
    fn render(&self, relative: &str) -> Vec<Value> {
        let output = kustomize(&self.path(relative)).expect("kustomize was found");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{relative}: {stderr}");
        assert_eq!(stderr, "", "{relative}: a warning");
        documents(&String::from_utf8_lossy(&output.stdout))
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn documents(text: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).expect("an object"))
        .collect()
}

// --- parts of objects ---

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

fn only<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let mut found = of_kind(objects, kind);
    let first = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "more than one {kind}");
    first
}

/// The spec of a Job, or that of a CronJob's Jobs.
fn job_of(object: &Value) -> Option<&Value> {
    match object["kind"].as_str()? {
        "CronJob" => object.pointer("/spec/jobTemplate/spec"),
        "Job" => object.get("spec"),
        _ => None,
    }
}

fn pod_of(object: &Value) -> Option<Value> {
    match job_of(object) {
        Some(job) => job.pointer("/template/spec").cloned(),
        None => (object["kind"] == "Pod").then(|| object["spec"].clone()),
    }
}

fn pod_labels(object: &Value) -> Option<(String, &Value)> {
    let labels = job_of(object)?.pointer("/template/metadata/labels")?;
    Some((object["metadata"]["name"].to_string(), labels))
}

fn list(object: &Value, pointer: &str) -> Vec<Value> {
    let found = object.pointer(pointer).and_then(Value::as_array);
    found
        .unwrap_or_else(|| panic!("no list {pointer} in {object}"))
        .clone()
}

#[track_caller]
fn named(object: &Value, pointer: &str, name: &str) -> Value {
    let found = list(object, pointer)
        .into_iter()
        .find(|one| one["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {pointer} of {object}"))
}

fn claim(pod: &Value) -> String {
    let volume = named(pod, "/volumes", "bots");
    volume["persistentVolumeClaim"]["claimName"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn config_map_of(pod: &Value) -> String {
    let volume = named(pod, "/volumes", "config");
    volume["configMap"]["name"].as_str().unwrap().to_owned()
}

// --- tools; the absence of one is a failure, never a skipped test ---

/// Renders with the first of `kubectl kustomize` and `kustomize build` that knows components.
fn kustomize(place: &Path) -> Option<std::process::Output> {
    static TOOL: OnceLock<(PathBuf, &str)> = OnceLock::new();
    let (program, verb) = TOOL.get_or_init(|| {
        let candidates = programs("kubectl").map(|path| (path, "kustomize"));
        let others = programs("kustomize").map(|path| (path, "build"));
        let probe = root().join("kube/job");
        candidates
            .chain(others)
            .find(|(program, verb)| {
                let output = Command::new(program).arg(verb).arg(&probe).output();
                output.is_ok_and(|output| output.status.success())
            })
            .expect("kubectl 1.29 or newer, or kustomize 5; ./build.sh test finds or makes one")
    });
    Command::new(program).arg(verb).arg(place).output().ok()
}

/// Fails with what the schemas say against the objects.
fn validate(version: &str, places: &[(String, Vec<Value>)]) -> Result<(), String> {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools");
    let program = programs("kubernetes-validate")
        .chain([tools.join("kubernetes-validate/bin/kubernetes-validate")])
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("{VALIDATOR} is missing; ./build.sh test installs it"));
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    command.args(["--strict", "--quiet", "--kubernetes-version", version]);
    for (what, objects) in places {
        assert!(!objects.is_empty(), "{what} renders to nothing");
        let file = directory.path().join(what.replace('/', "-"));
        let documents: Vec<String> = objects.iter().map(Value::to_string).collect();
        fs::write(&file, documents.join("\n---\n")).unwrap();
        command.arg(file);
    }
    let output = command.output().expect("start kubernetes-validate");
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(String::from_utf8_lossy(&text).into_owned())
}

/// All programs of this name on PATH.
fn programs(name: &str) -> impl Iterator<Item = PathBuf> {
    let on_path = env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = env::split_paths(&on_path).collect();
    places.into_iter().map(move |place| place.join(name))
}
