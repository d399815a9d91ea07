//! The rules, the claim, the image, the Secret and the network of an environment.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    CLAIM, ENVIRONMENTS, Kube, MOUNT, all_objects, all_pods, claim, config_map_of, documents, list,
    named, of_kind, only, pod_labels, pod_of,
};
use crate::support::Sandbox;

#[test]
fn a_changed_config_rolls_out_under_a_new_name() {
    let kube = Kube::new();
    let place = kube.overlay_with("prod", &["private-ca", "per-direction"]);
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
    sandbox.env("MINIO_BUCKET", "edi-dev");
    for file in ["base/config.yaml", "job/config.yaml"] {
        let path = kube.path(file);
        sandbox
            .call(&["check".as_ref(), "--config".as_ref(), path.as_os_str()])
            .exits(0);
    }
}

/// They shared one, and development took the orders of production.
#[test]
fn environments_share_no_bucket() {
    let kube = Kube::new();
    let mut buckets = BTreeSet::new();
    for (environment, ..) in ENVIRONMENTS {
        let place = kube.overlay_with(environment, &["private-ca", "per-direction"]);
        kube.edit("job/kustomization.yaml", "overlays/dev", &place);
        let objects = [kube.render(&place), kube.render("job")].concat();
        let of_pods = objects.iter().filter_map(pod_of).map(|pod| {
            let variable = named(&pod, "/containers/0/env", "MINIO_BUCKET");
            variable["value"].as_str().unwrap().to_owned()
        });
        let mut of_pods: Vec<String> = of_pods.collect();
        assert_eq!(of_pods.len(), 3, "two CronJobs and a Job");
        of_pods.dedup();
        assert_eq!(of_pods.len(), 1, "{environment}: {of_pods:?}");
        assert!(
            buckets.insert(of_pods.remove(0)),
            "{environment} has another one's bucket"
        );
        kube.edit("job/kustomization.yaml", &place, "overlays/dev");
    }
    for file in ["base/config.yaml", "job/config.yaml", "README.md"] {
        let text = kube.read(file);
        assert!(
            !text.contains("default_bucket:"),
            "{file} names a bucket for all environments"
        );
    }
    for bucket in buckets {
        assert!(
            kube.read("README.md").contains(&format!("`{bucket}`")),
            "{bucket}"
        );
    }
}

#[test]
fn the_user_of_a_bucket_may_use_no_other() {
    let kube = Kube::new();
    let make_policy = kube.command("sed \"s/:::edi/");
    for bucket in ["edi-dev", "edi-staging", "edi"] {
        let policy = kube.shell(&format!("bucket={bucket}\n{make_policy}"));
        let policy: Value = serde_json::from_str(&policy).expect("a policy");
        let statements = list(&policy, "/Statement");
        let resources: Vec<Value> = statements
            .iter()
            .flat_map(|statement| list(statement, "/Resource"))
            .collect();
        let expected = [
            json!(format!("arn:aws:s3:::{bucket}")),
            json!(format!("arn:aws:s3:::{bucket}/*")),
        ];
        assert_eq!(resources, expected);
    }
}

#[test]
fn the_claim_is_named_in_one_place_of_an_environment() {
    let kube = Kube::new();
    for (environment, ..) in ENVIRONMENTS {
        let place = kube.overlay_with(environment, &["private-ca", "per-direction"]);
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
        let objects = kube.render(&kube.overlay_with(environment, &["per-direction"]));
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
