//! What a verdict depends on, as one number: the program, its problem's tests, the limits and rules of judging, the
//! language's table entry, the toolchain's version, the kind of sandbox and this judge's own version.

use std::collections::HashMap;
use std::sync::Mutex;

use cognate_languages::Language;
use cognate_records::Problem;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_128;

use crate::judge::Policy;
use crate::problems::checker_languages;
use crate::sandbox::kinds::Kind;
use crate::toolchain::Toolchains;

/// Raised when the same program would get another verdict from the same tests.
const RULES: u32 = 1;

/// Makes keys.
#[derive(Default)]
pub struct Keys {
    /// What stands for a language and its toolchain.
    languages: Mutex<HashMap<String, String>>,
}

impl Keys {
    pub fn of(
        &self,
        tools: &Toolchains,
        policy: &Policy,
        kind: Kind,
        language: &Language,
        problem: &Problem,
        source: &str,
    ) -> u128 {
        let checkers: Vec<String> = checker_languages(problem)
            .filter_map(|name| tools.languages.by_spelling(name))
            .map(|language| self.language(tools, language))
            .collect();
        let text = json!({
            "judge": [env!("CARGO_PKG_VERSION"), RULES.to_string()],
            "policy": format!("{policy:?}"),
            "sandbox": format!("{kind:?}"),
            "language": self.language(tools, language),
            "checkers": checkers,
            "problem": [&problem.id, &json!([problem.tests, problem.checker, problem.limits, problem.groups]).to_string()],
            "source": source,
        });
        xxh3_128(text.to_string().as_bytes())
    }

    fn language(&self, tools: &Toolchains, language: &Language) -> String {
        let mut known = self.languages.lock().expect("no thread panics while it holds this");
        let text = || {
            let l = language;
            let table = json!([
                l.name,
                l.source,
                l.compile,
                l.run,
                l.environment,
                l.prepare,
                l.tags,
                l.cpu_factor,
                l.memory_factor,
                l.startup_ms,
                l.startup_mb,
                l.startup_processes
            ]);
            format!("{table} {:?}", tools.version(language))
        };
        known.entry(language.name.clone()).or_insert_with(text).clone()
    }
}
