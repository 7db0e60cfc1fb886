//! `--rootfs`: programs see an image's root folder in place of the host's, and toolchains are those inside.

mod common;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Case, JUDGE, can_judge, program, records, sum_problem};

/// A root folder with Bash, `cat` and the libraries that they need, copied from this machine. `None`, loudly, where that
/// cannot be made.
fn root(case: &Case) -> Option<PathBuf> {
    let root = case.path("image/rootfs");
    for folder in ["usr/bin", "usr/local/tools", "etc", "opt", "tmp"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    symlink("usr/bin", root.join("bin")).unwrap();
    for name in ["bash", "cat"] {
        let Some(host) = ["/usr/bin", "/bin"].iter().map(|d| Path::new(d).join(name)).find(|p| p.exists())
        else {
            eprintln!("SKIPPED: no {name} to copy");
            return None;
        };
        let Ok(output) = Command::new("ldd").arg(&host).output() else {
            eprintln!("SKIPPED: no ldd to find the libraries of {name}");
            return None;
        };
        std::fs::copy(&host, root.join("usr/bin").join(name)).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for library in text.split_ascii_whitespace().filter(|word| word.starts_with('/')) {
            let place = root.join(&library[1..]);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::copy(library, place).unwrap();
        }
    }
    // The language is found through a link that means a place inside.
    std::fs::rename(root.join("usr/bin/bash"), root.join("usr/local/tools/bash")).unwrap();
    symlink("/usr/local/tools/bash", root.join("usr/bin/bash")).unwrap();
    std::fs::write(root.join("opt/mark"), "of the image\n").unwrap();
    std::fs::write(root.join("etc/mark"), "of its etc\n").unwrap();
    std::fs::write(root.join("etc/passwd"), "somebody:x:1:1::/:/bin/bash\n").unwrap();
    Some(root)
}

#[test]
fn programs_run_in_the_image_and_in_nothing_else() {
    if !can_judge(&["bash"]) {
        return;
    }
    let case = Case::new();
    let Some(root) = root(&case) else { return };
    let flag = ["--rootfs", root.to_str().unwrap()];
    let names = Command::new(JUDGE).args(["languages", "--names"]).args(flag).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&names.stdout), "bash\n");
    let report = Command::new(JUDGE).args(["languages", "--json"]).args(flag).output().unwrap();
    let report: Vec<serde_json::Value> = serde_json::from_slice(&report.stdout).unwrap();
    let bash = report.iter().find(|l| l["name"] == "bash").unwrap();
    let version = bash["version"].as_str().unwrap();
    assert!(version.starts_with(|c: char| c.is_ascii_digit()), "asked inside: {bash}");

    case.lines("problems.jsonl", &[sum_problem()]);
    let sum = "read a b; echo $((a + b))\n";
    let looks = format!(
        "[ \"$(cat /opt/mark)\" = 'of the image' ] && [ \"$(cat /etc/mark)\" = 'of its etc' ] || exit 3\n\
         [[ $(cat /etc/passwd) == root* && $(cat /etc/passwd) != *somebody* ]] || exit 4\n\
         for place in /usr/bin/env /usr/lib/os-release /etc/hostname /root /home; do [ -e $place ] && exit 5; done\n\
         (echo x > /opt/mark) 2> /dev/null && exit 6\n(echo x > /new) 2> /dev/null && exit 7\n{sum}"
    );
    let lines =
        [program("sum", "bash", sum), program("looks", "bash", &looks), program("wrong", "bash", "echo 1\n")];
    case.lines("programs.jsonl", &lines);
    for sandbox in ["auto", "container"] {
        let output = case
            .judge(&[&["programs.jsonl", "-q", "--excerpts", "--sandbox", sandbox], &flag[..]].concat(), "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let judged = records(&output.stdout);
        let statuses: Vec<&str> = judged.iter().map(|r| r["verdict"]["status"].as_str().unwrap()).collect();
        assert_eq!(statuses, ["AC", "AC", "WA"], "{judged:?}");
    }
    assert_eq!(std::fs::read_to_string(root.join("opt/mark")).unwrap(), "of the image\n");
    let mut left: Vec<_> = std::fs::read_dir(&root).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert!(
        !left.iter().any(|name| name == "box" || name == "proc"),
        "nothing is made in the image: {left:?}"
    );

    // What the image lacks is missing, whatever the host has.
    case.lines("programs.jsonl", &[program("p", "python", "print(3)\n")]);
    let output = case.judge(&[&["programs.jsonl", "-q"], &flag[..]].concat(), "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(3) && said.contains("python3 not found"), "{said}");
}

#[test]
fn what_is_no_image_and_sandboxes_that_have_none_are_refused() {
    let case = Case::new();
    case.lines("problems.jsonl", &[sum_problem()]);
    let folder = case.dir.path().to_str().unwrap();
    let output = case.judge(&["-", "--rootfs", folder], "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("neither usr nor bin"), "{said}");
    let output = case.judge(&["-", "--rootfs", "/", "--sandbox", "process"], "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("--rootfs is for"), "{said}");
}
