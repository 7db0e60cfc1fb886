//! The HTTP interface as its users see it: SandboxFusion's fields, the token, the limits, both kinds of address.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Case, JUDGE, can_judge, sum_problem};
use serde_json::{Value, json};

struct Server {
    child: Child,
    address: String,
    case: Case,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(flags: &[&str]) -> Server {
    let case = Case::new();
    case.lines("problems.jsonl", &[sum_problem()]);
    let listen = if flags.contains(&"--listen") { &[][..] } else { &["--listen", "127.0.0.1:0"] };
    let mut child = Command::new(JUDGE)
        .current_dir(case.dir.path())
        .args(["serve", "-j2", "--tests", "problems.jsonl"])
        .args(listen)
        .args(flags)
        .env_remove("COGNATE_JUDGE_TOKEN")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.find_map(|l| l.ok().filter(|l| l.starts_with("listening on "))).expect("it listens");
    std::thread::spawn(move || lines.for_each(drop));
    let address = line.trim_start_matches("listening on ").trim_start_matches("http://").to_owned();
    Server { child, address, case }
}

/// Sends bytes and reads one response: status and body.
fn exchange(mut stream: impl Read + Write, request: &[u8]) -> (u16, Value) {
    stream.write_all(request).unwrap();
    let mut input = BufReader::new(stream);
    let mut line = String::new();
    input.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut length = 0;
    loop {
        let mut header = String::new();
        input.read_line(&mut header).unwrap();
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body).unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

impl Server {
    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, Value) {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
        exchange(stream, format!("{head}{body}").as_bytes())
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) =
            self.send("POST", path, "Content-Type: application/json\r\n", &body.to_string());
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

#[test]
fn run_code_answers_as_sandbox_fusion_does() {
    if !can_judge(&["python", "c"]) {
        return;
    }
    let server = start(&[]);
    assert_eq!(server.send("GET", "/v1/ping", "", ""), (200, json!("pong")));
    assert_eq!(server.send("GET", "/health", "", "").1["status"], "ok");

    let answer = server
        .post("/run_code", &json!({"code": "print(input()[::-1])", "language": "python", "stdin": "abc"}));
    assert_eq!(
        (&answer["status"], &answer["message"], &answer["compile_result"], &answer["files"]),
        (&json!("Success"), &json!(""), &Value::Null, &json!({}))
    );
    let run = &answer["run_result"];
    assert_eq!(
        (&run["status"], &run["return_code"], &run["stdout"], &run["stderr"]),
        (&json!("Finished"), &json!(0), &json!("cba\n"), &json!(""))
    );
    assert!(run["execution_time"].as_f64().unwrap() > 0.0);

    let code = "import sys\nprint('x')\nsys.stderr.write('y')\nsys.exit(3)\n";
    let answer = server.post("/run_code", &json!({"code": code, "language": "python"}));
    let run = &answer["run_result"];
    assert_eq!(
        (&answer["status"], &run["return_code"], &run["stdout"], &run["stderr"]),
        (&json!("Failed"), &json!(3), &json!("x\n"), &json!("y"))
    );

    let c = "#include <stdlib.h>\nint main(void) { abort(); }\n";
    let answer = server.post("/run_code", &json!({"code": c, "language": "c"}));
    assert_eq!(
        (&answer["compile_result"]["return_code"], &answer["run_result"]["return_code"]),
        (&json!(0), &json!(-6))
    );

    let answer = server.post("/run_code", &json!({"code": "int main(", "language": "c"}));
    assert_eq!((&answer["status"], &answer["run_result"]), (&json!("Failed"), &Value::Null));
    assert_eq!(answer["compile_result"]["return_code"], 1);
    assert!(answer["compile_result"]["stderr"].as_str().unwrap().contains("error"));

    for code in ["while True: pass", "import time; time.sleep(60)"] {
        let answer =
            server.post("/run_code", &json!({"code": code, "language": "python", "run_timeout": 0.5}));
        let run = &answer["run_result"];
        assert_eq!(
            (&answer["status"], &run["status"], &run["return_code"]),
            (&json!("Failed"), &json!("TimeLimitExceeded"), &Value::Null)
        );
    }
    let answer = server.post("/run_code", &json!({"code": "", "language": "kobol"}));
    assert_eq!(answer["status"], "SandboxError");
}

#[test]
fn files_go_in_and_come_out() {
    if !can_judge(&["python"]) {
        return;
    }
    let server = start(&[]);
    // "2\n" and "def f(x): return x * 21\n"
    let answer = server.post("/run_code", &json!({
        "language": "python",
        "code": "from lib import f\nopen('out.bin', 'wb').write(bytes([0, 255, f(int(open('in/n.txt').read()))]))\n",
        "files": {"in/n.txt": "Mgo=", "lib.py": "ZGVmIGYoeCk6IHJldHVybiB4ICogMjEK", "none": null},
        "fetch_files": ["out.bin", "absent", "in/n.txt"],
    }));
    assert_eq!(answer["run_result"]["stderr"], "");
    assert_eq!(answer["files"], json!({"out.bin": "AP8q", "in/n.txt": "Mgo="}));
    for name in ["../x", "/etc/passwd", "a/../../b", ""] {
        let body = json!({"language": "python", "code": "", "fetch_files": [name]}).to_string();
        assert_eq!(
            server.send("POST", "/run_code", "Content-Type: application/json\r\n", &body).0,
            422,
            "{name}"
        );
    }
    // Nothing stays for the next request.
    let answer = server.post(
        "/run_code",
        &json!({"language": "python", "code": "import os\nprint(os.listdir('/tmp'), os.listdir('/box'))"}),
    );
    assert_eq!(answer["run_result"]["stdout"], "[] ['main.py']\n");
}

#[test]
fn submit_judges_what_comes_along_and_what_the_server_knows() {
    if !can_judge(&["python"]) {
        return;
    }
    let server = start(&[]);
    let right = "Here:\n```python\nprint(sum(map(int, input().split())))\n```\n";
    let test = |a: &str, b: &str| json!({"input": {"stdin": a}, "output": {"stdout": b}});
    let with = |tests: &Value, completion: &str| {
        server.post("/submit", &json!({
            "dataset": "any", "id": 7, "completion": completion,
            "config": {"language": "python", "dataset_type": "CommonOJDataset", "provided_data": {"id": 7, "test": tests}},
        }))
    };
    let tests = json!([test("1 2\n", "3"), test("2 2\n", " 4 \n")]);
    let answer = with(&tests, right);
    assert_eq!(
        (&answer["id"], &answer["accepted"], &answer["extracted_type"]),
        (&json!(7), &json!(true), &json!("fenced"))
    );
    assert_eq!(answer["tests"][0]["exec_info"]["run_result"]["stdout"], "3\n");
    let answer = with(&json!(tests.to_string()), "```python\nprint(3)\n```");
    let passed: Vec<_> =
        answer["tests"].as_array().unwrap().iter().map(|t| t["passed"].as_bool().unwrap()).collect();
    assert_eq!((answer["accepted"].as_bool(), &passed[..]), (Some(false), &[true, false][..]));

    let known = |id: &str, completion: &str| {
        let body =
            json!({"dataset": "", "id": id, "completion": completion, "config": {"language": "python"}});
        server.send("POST", "/submit", "Content-Type: application/json\r\n", &body.to_string())
    };
    let (_, answer) = known("sum", right);
    assert_eq!((&answer["accepted"], &answer["extra"]["verdict"]["passed"]), (&json!(true), &json!(2)));
    assert_eq!(known("sum", "nothing to see").1["accepted"], false);
    assert_eq!(known("unknown", right).0, 404);
}

#[test]
fn strangers_and_excess_are_turned_away() {
    if !can_judge(&["python"]) {
        return;
    }
    let server = start(&["--token", "s3cret", "--max-body-mb", "1", "--max-timeout", "20"]);
    let body = json!({"code": "print(1)", "language": "python"}).to_string();
    let of = |headers: &str, body: &str| server.send("POST", "/run_code", headers, body).0;
    let json_type = "Content-Type: application/json\r\n";
    let good = format!("{json_type}Authorization: Bearer s3cret\r\n");
    assert_eq!(of(&good, &body), 200);
    // base64 of ":s3cret"
    assert_eq!(of(&format!("{json_type}Authorization: Basic OnMzY3JldA==\r\n"), &body), 200);
    for wrong in
        ["", "Authorization: Bearer s3cre\r\n", "Authorization: Bearer \r\n", "Authorization: s3cret\r\n"]
    {
        assert_eq!(of(&format!("{json_type}{wrong}"), &body), 401, "{wrong}");
    }
    assert_eq!(of(&good.replace("application/json", "text/plain"), &body), 415);
    assert_eq!(of(&good, "{\"code\": 1}"), 422);
    assert_eq!(of(&good, &json!({"code": "", "language": "python", "run_timeout": 21}).to_string()), 422);
    assert_eq!(of(&good, &format!("{}{body}", " ".repeat(1 << 20))), 413);
    let get = |path: &str| server.send("GET", path, &good, "").0;
    assert_eq!([get("/run_code"), get("/etc/passwd"), get("/run_jupyter")], [405, 404, 405]);
    // Other machines could reach this one.
    let open = Command::new(JUDGE).args(["serve", "--listen", "0.0.0.0:0"]).output().unwrap();
    assert_eq!(open.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&open.stderr).contains("needs --token-file"));
}

#[test]
fn many_at_once_and_a_unix_socket() {
    if !can_judge(&["python"]) {
        return;
    }
    let server = start(&["--connections", "3"]);
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..24)
            .map(|n| {
                let server = &server;
                scope.spawn(move || {
                    server.post("/run_code", &json!({"code": format!("print({n})"), "language": "python"}))
                })
            })
            .collect();
        for (n, answer) in asked.into_iter().enumerate() {
            assert_eq!(answer.join().unwrap()["run_result"]["stdout"], format!("{n}\n"));
        }
    });
    let server = start(&["--listen", "unix:judge.sock"]);
    let path = server.case.path("judge.sock");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let answer = exchange(UnixStream::connect(&path).unwrap(), b"GET /v1/ping HTTP/1.1\r\n\r\n");
    assert_eq!(answer, (200, json!("pong")));
}
