//! How a language runs as WebAssembly, and the table as a WebAssembly sandbox sees it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::{Language, Languages};

/// A language's route through WebAssembly. The keys are explained at the head of `languages.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wasm {
    #[serde(default)]
    pub guest: Option<String>,
    #[serde(default)]
    pub compile: Option<Vec<String>>,
    #[serde(default)]
    pub prepare: Option<Vec<String>>,
    #[serde(default)]
    pub home: Option<Vec<String>>,
    #[serde(default)]
    pub requires: Vec<String>,
    #[serde(default)]
    pub arguments: Vec<String>,
    #[serde(default)]
    pub version: Option<Vec<String>>,
    #[serde(default)]
    pub packages: Vec<String>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Fuel (executed instructions of WebAssembly) that one millisecond of CPU limit is worth.
    pub fuel_per_ms: u64,
    #[serde(default)]
    pub startup_ms: u64,
    #[serde(default)]
    pub startup_mb: u64,
}

impl Wasm {
    /// # Errors
    /// One line, where the route could not run anything.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.guest.is_some() == self.compile.is_some() {
            return Err("`wasm` needs either `guest` or `compile`".into());
        }
        if self.fuel_per_ms == 0 || self.compile.as_ref().is_some_and(Vec::is_empty) {
            return Err("`wasm` needs a rate of fuel, and `compile` a command".into());
        }
        Ok(())
    }
}

impl Languages {
    /// The same languages as a WebAssembly sandbox runs them: what compiles and runs them is their route's, and the
    /// program of the command is /box/NAME.wasm, NAME being the language's. Languages without a route keep their place
    /// and cannot run.
    pub fn in_wasm(&self, guests: Option<&Path>) -> Self {
        self.map(|language| {
            let Some(route) = language.wasm.clone() else { return Language { in_wasm: true, ..language } };
            let here = |words: Vec<String>| -> Vec<String> {
                let folder = guests.map(|g| g.to_string_lossy().into_owned()).unwrap_or_default();
                words.into_iter().map(|word| word.replace("{guests}", &folder)).collect()
            };
            let run =
                std::iter::once(format!("/box/{}.wasm", language.name)).chain(route.arguments).collect();
            Language {
                run,
                compile: route.compile.map(here),
                compile_if: BTreeMap::new(),
                prepare: route.prepare,
                home: route.home.map(here),
                version: route.version.map(here).unwrap_or_default(),
                packages: route.packages,
                environment: route.environment,
                startup_ms: route.startup_ms,
                startup_mb: route.startup_mb,
                startup_processes: 0,
                npm: Vec::new(),
                fork_server: None,
                canary: None,
                in_wasm: true,
                ..language
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_in_wasm_runs_by_routes_alone() {
        let native = Languages::builtin();
        let table = native.in_wasm(Some(Path::new("/guests")));
        let lua = table.get("lua").unwrap();
        assert_eq!(lua.run, ["/box/lua.wasm", "/box/{source}"]);
        assert!(lua.in_wasm && lua.compile.is_none() && lua.fork_server.is_none());
        let go = table.get("go").unwrap();
        assert!(go.home.as_ref().unwrap().concat().contains("/guests/go"), "{:?}", go.home);
        assert_eq!(go.environment["GOOS"], "wasip1");
        // Its own run would be the native one.
        assert!(table.get("ruby").unwrap().in_wasm && table.get("ruby").unwrap().wasm.is_none());
        assert_eq!(table.iter().count(), native.iter().count());
        assert_eq!(table.by_spelling("GNU C++17 (64)").unwrap().name, "cpp");
    }

    #[test]
    fn a_route_is_a_guest_or_a_compiler() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.toml");
        for (route, good) in [
            ("guest = \"lua\"\nfuel_per_ms = 1", true),
            ("compile = [\"cc\"]\nfuel_per_ms = 1", true),
            ("guest = \"lua\"\ncompile = [\"cc\"]\nfuel_per_ms = 1", false),
            ("fuel_per_ms = 1", false),
            ("guest = \"lua\"\nfuel_per_ms = 0", false),
            ("guest = \"lua\"", false),
        ] {
            std::fs::write(&path, format!("[lua.wasm]\n{route}\n")).unwrap();
            assert_eq!(Languages::with_user_file(&path).is_ok(), good, "{route}");
        }
    }
}
