//! A server that speaks TLS, with certificates that the test makes with `openssl`, where that is installed.

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
};

use libp2p_peerstore::{Datastore, RedisConfig, RedisDatastore};

use super::{
    skip::skipped,
    support::{Server, free_port},
};

/// How the second process learns what to connect to.
const URL: &str = "PEERSTORE_TEST_REDISS_URL";

fn openssl(folder: &Path, args: &str) -> bool {
    let mut command = Command::new("openssl");
    command.args(args.split(' ')).current_dir(folder);
    let status = command.stderr(Stdio::null()).stdout(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// `ca.pem`, and `server.pem` with `server.key` signed by it.
fn certificates(folder: &Path) -> bool {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    std::fs::write(folder.join("san"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(
        folder,
        &format!("req -x509 {key} -days 2 -subj /CN=ca -keyout ca.key -out ca.pem"),
    ) && openssl(
        folder,
        &format!("req {key} -subj /CN=server -keyout server.key -out server.csr"),
    ) && openssl(
        folder,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.pem",
    )
}

/// Only a process of its own can trust other certificates than those of the system.
#[test]
fn a_server_is_reached_over_tls_if_its_certificate_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    if !certificates(folder.path()) {
        skipped("openssl", "`openssl` is not installed");
        return;
    }
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let port = free_port().to_string();
    let Some(_server) = Server::start(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &file("server.pem"),
        "--tls-key-file",
        &file("server.key"),
        "--tls-ca-cert-file",
        &file("ca.pem"),
        "--tls-auth-clients",
        "no",
    ]) else {
        return;
    };
    for (trusted, reached) in [("ca.pem", true), ("san", false)] {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args([
            "--exact",
            "tls::in_a_process_of_its_own",
            "--ignored",
            "--nocapture",
        ]);
        child
            .env("SSL_CERT_FILE", file(trusted))
            .env_remove("SSL_CERT_DIR");
        child.env(URL, format!("rediss://127.0.0.1:{port}"));
        let output = child.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        assert_eq!(text.contains("reached"), reached, "{text}");
        assert_eq!(text.contains("not trusted"), !reached, "{text}");
    }
}

#[tokio::test]
#[ignore = "a part of the test above"]
async fn in_a_process_of_its_own() {
    let Ok(url) = env::var(URL) else {
        return;
    };
    match RedisDatastore::open([url], RedisConfig::new("n")).await {
        Ok(datastore) => {
            datastore.put("/a", vec![1]).await.unwrap();
            println!("reached {:?}", datastore.get("/a").await.unwrap());
        }
        Err(error) => println!("not trusted: {}", super::told(&error)),
    }
}
