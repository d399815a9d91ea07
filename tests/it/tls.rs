//! HTTPS with a private CA, as clusters have it.

use crate::support::minio::{Identity, Minio};
use crate::support::{End, Sandbox, ends, tree};

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_tls();
    sandbox.bucket().put("in/a", "1");
    sandbox.rule("r", &ends((End::S3, End::File)));
    sandbox
}

fn own_ca() -> String {
    Minio::tls().ca_pem.clone().expect("it speaks TLS")
}

#[test]
fn a_private_ca_is_trusted_where_it_is_named() {
    let other = Identity::new("another CA", &[]).ca;
    for bundle in [own_ca(), format!("{other}\n{}", own_ca())] {
        let sandbox = sandbox();
        let path = sandbox.path("ca.pem");
        std::fs::write(&path, bundle).unwrap();
        sandbox.env("MINIO_VERIFY", format!("{}\n", path.display()));
        let run = sandbox.run();
        run.succeeds();
        assert_eq!(sandbox.files("out"), tree(&[("a", "1")]));
        assert!(
            run.events().iter().all(|line| line.level == "INFO"),
            "{run:?}"
        );
    }
}

#[test]
fn another_ca_is_refused() {
    let sandbox = sandbox();
    let path = sandbox.path("ca.pem");
    std::fs::write(&path, Identity::new("another CA", &[]).ca).unwrap();
    sandbox.env("MINIO_VERIFY", &path);
    let address = Minio::tls().address.clone();
    sandbox
        .run()
        .fails()
        .says("failed", &[&address, "MINIO_VERIFY"]);
    assert!(sandbox.bucket().has("in/a") && sandbox.files("out").is_empty());
}

#[test]
fn a_private_ca_is_refused_where_it_is_not_named() {
    for value in ["", "true"] {
        let sandbox = sandbox();
        sandbox.env("MINIO_VERIFY", value);
        sandbox.run().fails().says("failed", &["MINIO_VERIFY"]);
        assert!(sandbox.files("out").is_empty(), "{value:?}");
    }
}

#[test]
fn verification_that_is_off_works_and_warns() {
    let sandbox = sandbox();
    sandbox.env("MINIO_VERIFY", "false");
    let run = sandbox.run();
    run.succeeds();
    let warned = |line: &crate::support::log::Event| {
        line.level == "WARN" && format!("{line:?}").contains("MINIO_VERIFY")
    };
    assert!(run.events().iter().any(warned), "{run:?}");
    assert_eq!(sandbox.files("out").len(), 1);
}

#[test]
fn a_bundle_without_a_certificate_is_refused() {
    for text in [
        "",
        "hello",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let sandbox = sandbox();
        let path = sandbox.path("ca.pem");
        std::fs::write(&path, text).unwrap();
        sandbox.env("MINIO_VERIFY", &path);
        let run = sandbox.run();
        run.is_refused(&["MINIO_VERIFY", "ca.pem"]);
        assert!(sandbox.bucket().has("in/a"), "{text:?}");
    }
}

#[test]
fn the_wrong_scheme_is_told() {
    let secure = sandbox();
    secure.env("MINIO_ENDPOINT", format!("http://{}", Minio::tls().address));
    secure
        .run()
        .fails()
        .says("failed", &[&Minio::tls().address, "https"]);

    let plain = Sandbox::new();
    plain.bucket().put("in/a", "1");
    plain.env(
        "MINIO_ENDPOINT",
        format!("https://{}", Minio::plain().address),
    );
    plain.rule("r", &ends((End::S3, End::File)));
    plain
        .run()
        .fails()
        .says("failed", &[&Minio::plain().address, "http"]);
}
