//! Argo CD and Flux: what they may prune, and an example of each.

use serde_json::Value;

use super::{ENVIRONMENTS, Kube, documents, of_kind, only};

/// A run keeps the rules it began with: its pod may have yet to mount them when they are pruned.
#[test]
fn the_rules_of_a_run_are_not_pruned_under_it() {
    let kube = Kube::new();
    // As the README has it for rules of an environment's own.
    let own = "overlays/prod/kustomization.yaml";
    let generator = "configMapGenerator:\n  - name: bots-mover\n    behavior: replace\n    \
                     files: [config.yaml]\n";
    std::fs::write(kube.path(own), kube.read(own) + generator).unwrap();
    std::fs::copy(
        kube.path("base/config.yaml"),
        kube.path("overlays/prod/config.yaml"),
    )
    .unwrap();
    for place in ["base", "job", "overlays/dev", "overlays/prod"] {
        let objects = kube.render(place);
        let annotations = &only(&objects, "ConfigMap")["metadata"]["annotations"];
        for (key, value) in [
            ("argocd.argoproj.io/sync-options", "Prune=false"),
            ("argocd.argoproj.io/compare-options", "IgnoreExtraneous"),
            ("kustomize.toolkit.fluxcd.io/prune", "disabled"),
        ] {
            assert_eq!(annotations[key], value, "{place}: {key}");
        }
    }
}

/// Whether a path of this repository is that of an environment, and the namespace is its own.
#[track_caller]
fn is_an_environment(kube: &Kube, path: &Value, namespace: Option<&Value>) {
    let path = path.as_str().unwrap().trim_start_matches("./");
    let place = path.strip_prefix("kube/").expect("a path below kube/");
    let (_, wanted, ..) = ENVIRONMENTS
        .into_iter()
        .find(|(environment, ..)| place == format!("overlays/{environment}"))
        .expect("an overlay");
    let objects = kube.render(place);
    assert_eq!(only(&objects, "CronJob")["metadata"]["namespace"], wanted);
    if let Some(namespace) = namespace {
        assert_eq!(namespace, wanted);
    }
}

#[test]
fn the_example_for_argo_cd_is_about_an_environment() {
    let kube = Kube::new();
    let objects = documents(&kube.read("gitops/argocd.yaml"));
    let application = only(&objects, "Application");
    assert_eq!(application["apiVersion"], "argoproj.io/v1alpha1");
    let spec = &application["spec"];
    is_an_environment(
        &kube,
        &spec["source"]["path"],
        Some(&spec["destination"]["namespace"]),
    );
    assert_eq!(spec["syncPolicy"]["automated"]["prune"], true);
}

#[test]
fn the_example_for_flux_is_about_an_environment() {
    let kube = Kube::new();
    let objects = documents(&kube.read("gitops/flux.yaml"));
    let source = only(&objects, "GitRepository");
    assert_eq!(source["apiVersion"], "source.toolkit.fluxcd.io/v1");
    let kustomization = only(&objects, "Kustomization");
    assert_eq!(
        kustomization["apiVersion"],
        "kustomize.toolkit.fluxcd.io/v1"
    );
    let spec = &kustomization["spec"];
    assert_eq!(spec["sourceRef"]["kind"], "GitRepository");
    assert_eq!(spec["sourceRef"]["name"], source["metadata"]["name"]);
    assert_eq!(spec["prune"], true);
    is_an_environment(&kube, &spec["path"], None);
    assert_eq!(of_kind(&objects, "Kustomization").count(), 1);
}
