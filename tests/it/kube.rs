//! The manifests of kube/ keep what kube/README.md promises: they are rendered as `kubectl apply
//! --kustomize` would, and looked at object by object. No cluster is needed.

mod alerts;
mod capacity;
mod components;
mod gitops;
mod jobs;
mod parts;
mod pods;
mod readme;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde::Deserialize as _;
use serde_json::{Value, json};
use tempfile::TempDir;

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
            places.push(kube.overlay_with(environment, &["per-direction"]));
            places.push(kube.overlay_with(environment, &["sharded"]));
            places
                .push(kube.overlay_with(environment, &["private-ca", "per-direction", "registry"]));
            places.push(kube.overlay_with(environment, &["metrics", "dashboard"]));
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

    /// The commands of the README that begin so, each in one line.
    fn commands(&self, beginning: &str) -> Vec<String> {
        let text = self.read("README.md");
        let lines = text.lines().map(str::trim);
        let found = lines.filter(|line| line.starts_with(beginning));
        found.map(str::to_owned).collect()
    }

    /// The one command of the README that begins so.
    #[track_caller]
    fn command(&self, beginning: &str) -> String {
        let mut found = self.commands(beginning);
        assert_eq!(found.len(), 1, "{beginning}: {found:?}");
        found.remove(0)
    }

    /// Runs a command of the README as it stands there, in development; gives what it prints.
    fn shell(&self, command: &str) -> String {
        // The README calls this directory kube/.
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(self.directory.path(), folder.path().join("kube")).unwrap();
        let words = self.commands("environment=");
        let output = Command::new("bash")
            .args(["-c", &format!("{}\n{command}", words[0])])
            .current_dir(folder.path())
            .output()
            .expect("bash can be started");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let made = fs::read_to_string(folder.path().join("policy.json"));
        text + &made.unwrap_or_default()
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
