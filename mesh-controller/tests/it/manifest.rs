//! What `meshctl manifest generate` prints: `tests/golden/manifest/<case>/{in,out}.yaml`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn check(case: &str) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/manifest").join(case);
    let out = Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .args(["manifest", "generate", "-f"])
        .arg(folder.join("in.yaml"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(String::from_utf8_lossy(&out.stderr), "", "nothing is left out");
    let (printed, golden) = (String::from_utf8(out.stdout).unwrap(), folder.join("out.yaml"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &printed).unwrap();
    }
    let want = fs::read_to_string(golden).unwrap();
    let first = printed.lines().zip(want.lines()).position(|(printed, want)| printed != want);
    assert!(printed == want, "{case}: out.yaml differs from line {first:?} on; UPDATE_GOLDEN=1 writes it");
}

#[test]
fn golden() {
    for case in ["demo", "canary"] {
        check(case);
    }
}

#[test]
fn mistakes_end_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("in.yaml");
    for (text, args, code, said) in [
        ("kind: Service\napiVersion: v1\n", &[][..], 2, "not an IstioOperator"),
        ("kind: [\n", &[], 2, "in.yaml:"),
        (
            "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n",
            &["--set", "profile=x"],
            2,
            "no profile \"x\"",
        ),
        ("", &["--set", "components.x.y.[0].z=1"], 2, "not an IstioOperator"),
        (
            "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec: {profile: empty, values: {nothing: 1}}\n",
            &[],
            0,
            "spec.values.nothing: this field is not supported",
        ),
    ] {
        fs::write(&file, text).unwrap();
        let out = Command::new(env!("CARGO_BIN_EXE_meshctl"))
            .args(["manifest", "generate", "-f", file.to_str().unwrap()])
            .args(args)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(code) && stderr.contains(said), "{text}: {:?} {stderr}", out.status);
    }
}
