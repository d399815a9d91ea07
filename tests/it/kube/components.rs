//! What an overlay may add.

use serde_json::{Value, json};

use super::{Kube, job_of, list, named, of_kind, only, pod_labels, pod_of};

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
fn cronjobs_per_direction_are_alike_and_leave_out_no_rule() {
    let kube = Kube::new();
    let objects = kube.render(&kube.overlay_with("prod", &["per-direction"]));
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
fn the_job_runs_all_its_rules_also_beside_two_cronjobs() {
    let kube = Kube::new();
    let place = kube.overlay_with("dev", &["per-direction"]);
    kube.edit("job/kustomization.yaml", "overlays/dev", &place);
    let objects = kube.render("job");
    let pod = pod_of(only(&objects, "Job")).unwrap();
    assert_eq!(pod["containers"][0].get("args"), None);
    assert!(of_kind(&objects, "CronJob").next().is_none());
}

/// A CronJob's Job, where there are so many shards.
fn sharded(kube: &Kube, components: &[&str]) -> Vec<Value> {
    let objects = kube.render(&kube.overlay_with("prod", components));
    of_kind(&objects, "CronJob")
        .map(|cronjob| job_of(cronjob).unwrap().clone())
        .collect()
}

#[test]
fn the_number_of_shards_is_said_once() {
    for components in [
        &["sharded"][..],
        &["sharded", "per-direction"],
        &["per-direction", "sharded"],
    ] {
        for count in [4, 7] {
            let kube = Kube::new();
            let file = "components/sharded/shards_patch.yaml";
            kube.edit(file, "completions: 4", &format!("completions: {count}"));
            let jobs = sharded(&kube, components);
            assert_eq!(jobs.len(), components.len());
            for job in jobs {
                assert_eq!(job["completionMode"], "Indexed");
                assert_eq!(job["completions"], count);
                assert_eq!(job["parallelism"], count);
                let env = "/template/spec/containers/0/env";
                let shards = named(&job, env, "BOTS_MOVER_SHARDS");
                assert_eq!(shards["value"], count.to_string());
                // What was there stays.
                named(&job, env, "BOTS_MOVER_UMASK");
                named(&job, env, "MINIO_BUCKET");
            }
        }
    }
}

#[test]
fn a_shard_that_fails_is_run_again_by_itself_and_nodes_are_a_wish() {
    let kube = Kube::new();
    let base = only(&kube.render("overlays/prod"), "CronJob").clone();
    let base = job_of(&base).unwrap();
    for job in sharded(&kube, &["sharded"]) {
        assert_eq!(job["backoffLimitPerIndex"], base["backoffLimit"]);
        // With it one bad shard would end all of them.
        assert_eq!(job.get("backoffLimit"), None);
        assert_eq!(job["template"]["spec"]["restartPolicy"], "Never");
        assert_eq!(job["podFailurePolicy"], base["podFailurePolicy"]);
        let spread = list(&job, "/template/spec/topologySpreadConstraints");
        assert_eq!(spread.len(), 1);
        assert_eq!(spread[0]["whenUnsatisfiable"], "ScheduleAnyway");
        let labels = &job["template"]["metadata"]["labels"];
        assert_eq!(&spread[0]["labelSelector"]["matchLabels"], labels);
    }
}

#[test]
fn the_job_is_in_as_many_shards_as_the_cronjob() {
    let kube = Kube::new();
    let place = kube.overlay_with("dev", &["sharded"]);
    kube.edit("job/kustomization.yaml", "overlays/dev", &place);
    let objects = kube.render("job");
    let job = job_of(only(&objects, "Job")).unwrap();
    assert_eq!(job["completions"], 4);
    let env = "/template/spec/containers/0/env";
    assert_eq!(named(job, env, "BOTS_MOVER_SHARDS")["value"], "4");
}

#[test]
fn the_credentials_of_a_registry_reach_every_pod() {
    let kube = Kube::new();
    let place = kube.overlay_with("dev", &["per-direction", "registry"]);
    kube.edit("job/kustomization.yaml", "overlays/dev", &place);
    let objects = [kube.render(&place), kube.render("job")].concat();
    let mut pods: Vec<Value> = objects.iter().filter_map(pod_of).collect();
    assert_eq!(pods.len(), 3, "two CronJobs and a Job");
    let said = kube.shell(&kube.command("sed --in-place 's/^  \"spec\": {$/"));
    assert_eq!(said, "");
    for file in ["run/buckets.json", "run/volume.json"] {
        let overrides: Value = serde_json::from_str(&kube.read(file)).unwrap();
        pods.push(overrides["spec"].clone());
    }
    let secret = "bots-mover-registry";
    for pod in pods {
        assert_eq!(
            pod["imagePullSecrets"],
            json!([{ "name": secret }]),
            "{pod}"
        );
    }
    let make_secret = kube.command("kubectl create secret docker-registry");
    assert!(make_secret.contains(secret), "{make_secret}");
}

#[test]
fn an_image_of_another_registry_is_named_in_one_place() {
    let kube = Kube::new();
    let image = kube.command("image=registry.");
    let image = image.trim_start_matches("image=");
    let (name, tag) = image.rsplit_once(':').unwrap();
    assert!(
        kube.read("README.md")
            .contains(&format!("newName: {name}`"))
    );
    let file = "overlays/dev/kustomization.yaml";
    kube.edit(
        file,
        "newName: localhost/bots-mover",
        &format!("newName: {name}"),
    );
    assert!(kube.read(file).contains(&format!("newTag: {tag}\n")));
    for objects in [kube.render("overlays/dev"), kube.render("job")] {
        for pod in objects.iter().filter_map(pod_of) {
            assert_eq!(pod["containers"][0]["image"], image);
        }
    }
}

#[test]
fn an_image_is_pinned_by_the_digest_that_push_prints() {
    let kube = Kube::new();
    assert!(
        kube.read("README.md")
            .contains("`digest: sha256:…` in place of `newTag`")
    );
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let file = "overlays/dev/kustomization.yaml";
    let tag = concat!("newTag: ", env!("CARGO_PKG_VERSION"));
    kube.edit(file, tag, &format!("digest: {digest}"));
    for objects in [kube.render("overlays/dev"), kube.render("job")] {
        let pods: Vec<Value> = objects.iter().filter_map(pod_of).collect();
        assert_eq!(pods.len(), 1);
        let image = format!("localhost/bots-mover@{digest}");
        assert_eq!(pods[0]["containers"][0]["image"], image);
    }
}

#[test]
fn a_pushgateway_is_told_of_its_namespace_and_may_be_reached() {
    let kube = Kube::new();
    for place in [
        kube.overlay_with("prod", &["metrics"]),
        kube.overlay_with("prod", &["metrics", "per-direction"]),
    ] {
        let objects = kube.render(&place);
        for pod in objects.iter().filter_map(pod_of) {
            let url = named(&pod, "/containers/0/env", "BOTS_MOVER_METRICS");
            assert_eq!(url["value"], "http://pushgateway.monitoring:9091");
            let namespace = named(&pod, "/containers/0/env", "POD_NAMESPACE");
            let field = &namespace["valueFrom"]["fieldRef"]["fieldPath"];
            assert_eq!(field, "metadata.namespace");
            // What was there stays.
            named(&pod, "/containers/0/env", "BOTS_MOVER_UMASK");
        }
        let mut policies = of_kind(&objects, "NetworkPolicy");
        let policy = policies.find(|policy| policy["metadata"]["name"] == "bots-mover-metrics");
        let spec = &policy.expect("a policy")["spec"];
        assert_eq!(spec["egress"][0]["ports"][0]["port"], 9091);
        let to = &spec["egress"][0]["to"][0]["namespaceSelector"]["matchLabels"];
        assert_eq!(to["kubernetes.io/metadata.name"], "monitoring");
        let selected = &spec["podSelector"]["matchLabels"];
        let labels: Vec<_> = objects.iter().filter_map(pod_labels).collect();
        assert!(!labels.is_empty());
        for (what, labels) in labels {
            assert_eq!(labels, selected, "{what}");
        }
    }
}

#[test]
fn grafana_s_sidecar_finds_the_dashboard_and_tidying_up_does_not() {
    let kube = Kube::new();
    let objects = kube.render(&kube.overlay_with("prod", &["metrics", "dashboard"]));
    let mut maps = of_kind(&objects, "ConfigMap");
    let map = maps.find(|map| map["metadata"]["labels"]["grafana_dashboard"] == "1");
    let map = map.expect("a ConfigMap with the label");
    // A hash in the name would leave the old dashboard beside the new one.
    assert_eq!(map["metadata"]["name"], "bots-mover-dashboard");
    let file = kube.read("components/dashboard/bots-mover.json");
    assert_eq!(map["data"], json!({ "bots-mover.json": file }));
    let labels = map["metadata"]["labels"].as_object().unwrap();
    assert!(!labels.contains_key("app.kubernetes.io/name"), "{labels:?}");
    let tidy_up = kube.command("kubectl delete configmap");
    assert!(tidy_up.contains("--selector=app.kubernetes.io/name="));
}

#[test]
fn the_panels_of_the_dashboard_lie_side_by_side_and_ask_one_prometheus() {
    let file = Kube::new().read("components/dashboard/bots-mover.json");
    let dashboard: Value = serde_json::from_str(&file).unwrap();
    let panels = list(&dashboard, "/panels");
    let mut places = Vec::new();
    let mut ids = Vec::new();
    for panel in &panels {
        for asks in [vec![panel.clone()], list(panel, "/targets")].concat() {
            let source = json!({ "type": "prometheus", "uid": "${DS_PROMETHEUS}" });
            assert_eq!(asks["datasource"], source);
        }
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(x + w <= 24, "{panel}");
        places.extend((x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))));
        ids.push(panel["id"].as_u64().unwrap());
    }
    for (what, count) in [("ids", ids.len()), ("places", places.len())] {
        ids.sort_unstable();
        ids.dedup();
        places.sort_unstable();
        places.dedup();
        let left = if what == "ids" {
            ids.len()
        } else {
            places.len()
        };
        assert_eq!(left, count, "two panels share {what}");
    }
    let variables = list(&dashboard, "/templating/list");
    assert_eq!(variables[0]["name"], "DS_PROMETHEUS");
    assert_eq!(variables[0]["type"], "datasource");
}
