//! Every language of the table that this machine has compiles, runs, is right, is wrong, and fails to compile.

mod common;

use common::{Case, can_judge, program, records, sum_problem};

const RIGHT: &[(&str, &str)] = &[
    ("python", "print(sum(map(int, input().split())))\n"),
    (
        "javascript",
        "console.log(require('fs').readFileSync(0, 'utf8').split(' ').map(Number).reduce((a, b) => a + b))\n",
    ),
    (
        "typescript",
        "import * as fs from 'fs'\nimport * as math from 'mathjs'\nconst xs: number[] = fs.readFileSync(0, 'utf8').trim().split(' ').map(Number)\n\
         console.log(math.sum(xs) as number)\n",
    ),
    ("perl", "my ($x, $y) = split ' ', <STDIN>; print $x + $y, \"\\n\";\n"),
    ("lua", "print(math.tointeger(io.read('n') + io.read('n')))\n"),
    ("ruby", "puts gets.split.map(&:to_i).sum\n"),
    ("php", "<?php\necho array_sum(explode(' ', trim(fgets(STDIN)))), \"\\n\";\n"),
    (
        "c",
        "#include <stdio.h>\nint main(void) { int a, b; scanf(\"%d %d\", &a, &b); printf(\"%d\\n\", a + b); }\n",
    ),
    (
        "cpp",
        "#include <bits/stdc++.h>\nint main() { int a, b; std::cin >> a >> b; std::cout << a + b << std::endl; }\n",
    ),
    (
        "go",
        "package main\n\nimport \"fmt\"\n\nfunc main() {\n\tvar a, b int\n\tfmt.Scan(&a, &b)\n\tfmt.Println(a + b)\n}\n",
    ),
    (
        "java",
        "import java.util.*;\npublic class Sum { public static void main(String[] x) { Scanner s = new Scanner(System.in); \
         System.out.println(s.nextInt() + s.nextInt()); } }\n",
    ),
    (
        "rust",
        "fn main() {\n    let mut s = String::new();\n    std::io::stdin().read_line(&mut s).unwrap();\n    \
         println!(\"{}\", s.split_whitespace().map(|x| x.parse::<i64>().unwrap()).sum::<i64>());\n}\n",
    ),
    ("bash", "read -r a b; echo $((a + b))\n"),
];

#[test]
fn every_language_that_is_here_is_judged() {
    let case = Case::new();
    case.lines("problems.jsonl", &[sum_problem()]);
    let mut lines = Vec::new();
    for (language, source) in RIGHT.iter().filter(|(l, _)| can_judge(&[l])) {
        lines.push(program("right", language, source));
        lines.push(program("wrong", language, &source.replace("sum", "max").replace(" + ", " - ")));
        lines.push(program("broken", language, "<?php ( \" ' ((\n"));
    }
    assert!(lines.len() >= 3, "not even bash?");
    case.lines("programs.jsonl", &lines);
    let output = case.judge(&["programs.jsonl", "--cpu-ms", "5000", "--drift"], "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for record in records(&output.stdout) {
        let verdict = &record["verdict"];
        let status = verdict["status"].as_str().unwrap();
        match record["id"].as_str().unwrap() {
            "right" => {
                assert_eq!(status, "AC", "{record}");
                assert_eq!(verdict["detected_language"], record["language"]);
            }
            "wrong" => assert!(matches!(status, "WA" | "RE" | "CE"), "{record}"),
            _ => assert!(matches!(status, "CE" | "RE"), "{record}"),
        }
    }
}

/// C++ has two precompiled headers, and the smaller is taken where that is seen to change nothing.
#[test]
fn cpp_means_the_same_whichever_header_it_gets() {
    if !can_judge(&["cpp"]) {
        return;
    }
    let all = "#include <bits/stdc++.h>\nusing namespace std;\n";
    let sum = "int a, b; cin >> a >> b; cout << a + b << endl;";
    let programs = [
        // Takes the lean one.
        ("plain", format!("{all}int main() {{ map<string, vector<int>> m; m[\"x\"] = {{1}}; {sum} }}\n")),
        // Each needs something that only the full one has.
        ("thread", format!("{all}int main() {{ thread t([] {{ {sum} }}); t.join(); }}\n")),
        ("random", format!("{all}int main() {{ mt19937 r(1); if (r() == 1791095845u) {{ {sum} }} }}\n")),
        ("regex", format!("{all}int main() {{ if (regex_match(\"aab\", regex(\"a*b\"))) {{ {sum} }} }}\n")),
        ("joined", format!("{all}#define J(x, y) x##y\nint main() {{ J(mt, 19937) r; {sum} }}\n")),
        ("continued", format!("{all}int main() {{ mt199\\\n37 r; {sum} }}\n")),
        // Mentioned in the lean one without being defined there, perhaps; the full one decides.
        ("lock", format!("{all}int main() {{ mutex m, n; lock(m, n); {sum} }}\n")),
        ("mutex", format!("{all}int main() {{ mutex m; m.lock(); {sum} m.unlock(); }}\n")),
        ("yield", format!("{all}int main() {{ this_thread::yield(); {sum} }}\n")),
        // Included by the program itself, a header is there whatever was precompiled.
        ("included", format!("{all}#include <random>\n#include <mutex>\nint main() {{ {sum} }}\n")),
        ("elsewhere", "#include <iostream>\nint main() { nothing_of_this_name x; }\n".into()),
        ("undefined", format!("{all}int main() {{ nothing_of_this_name x; {sum} }}\n")),
    ];
    let case = Case::new();
    case.lines("problems.jsonl", &[sum_problem()]);
    let lines: Vec<_> = programs.iter().map(|(id, source)| program(id, "cpp", source)).collect();
    case.lines("programs.jsonl", &lines);
    // A cache of its own, so that both headers are made now.
    let cache = case.scratch();
    let output =
        case.command(&["programs.jsonl", "--cpu-ms", "5000"]).env("COGNATE_CACHE", &cache).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !errors.contains("warning"), "{errors}");
    let judged = records(&output.stdout);
    assert_eq!(judged.len(), programs.len());
    let mut made = std::fs::read_dir(cache.join("judge")).unwrap().flatten();
    assert!(made.any(|f| f.path().join("lean/words").is_file()), "no lean header: {errors}");
    for record in judged {
        let refused = record["id"] == "undefined" || record["id"] == "elsewhere";
        let wanted = if refused { "CE" } else { "AC" };
        assert_eq!(record["verdict"]["status"], wanted, "{record}");
    }
}
