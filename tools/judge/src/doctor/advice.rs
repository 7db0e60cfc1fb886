//! From what is found on a machine to the exact command that mends it.

use std::fs;

/// What the advice depends on.
#[derive(Debug, Default)]
pub struct Facts {
    pub kernel: String,
    pub root: bool,
    /// The kind of container that this judge itself runs in.
    pub inside: Option<&'static str>,
    /// kernel.unprivileged_userns_clone, where this kernel has it (Debian's).
    pub unprivileged: Option<u64>,
    pub max_user_namespaces: Option<u64>,
    /// kernel.apparmor_restrict_unprivileged_userns (Ubuntu's, since 23.10).
    pub apparmor: Option<u64>,
    /// Version 2 is what is mounted at /sys/fs/cgroup.
    pub unified: bool,
    /// Names of the security modules that are switched on.
    pub modules: String,
}

impl Facts {
    pub fn gather() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let number = |path: &str| text(path).parse().ok();
        let is = |path: &str| fs::exists(path).unwrap_or(false);
        let kubernetes = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        let inside = match (kubernetes, is("/run/.containerenv"), is("/.dockerenv")) {
            (true, ..) => Some("Kubernetes"),
            (_, true, _) => Some("Podman"),
            (.., true) => Some("Docker"),
            _ => None,
        };
        Self {
            kernel: text("/proc/sys/kernel/osrelease"),
            // SAFETY: only reads.
            root: unsafe { libc::geteuid() } == 0,
            inside,
            unprivileged: number("/proc/sys/kernel/unprivileged_userns_clone"),
            max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
            apparmor: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            unified: is("/sys/fs/cgroup/cgroup.controllers"),
            modules: text("/sys/kernel/security/lsm"),
        }
    }
}

/// How to get namespaces, by what they failed with.
pub fn namespaces(facts: &Facts, reason: &str) -> String {
    let mut steps: Vec<String> = Vec::new();
    if facts.max_user_namespaces == Some(0) {
        steps.push("sysctl -w user.max_user_namespaces=15000".into());
    }
    if !facts.root && facts.unprivileged == Some(0) {
        steps.push("sysctl -w kernel.unprivileged_userns_clone=1".into());
    }
    if !facts.root && facts.apparmor == Some(1) {
        steps.push("sysctl -w kernel.apparmor_restrict_unprivileged_userns=0".into());
    }
    match facts.inside {
        // Their filters refuse unshare and mount, and what they hide of /proc forbids mounting another.
        Some(engine @ ("Docker" | "Podman")) => steps.push(format!(
            "{} run --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt {} …",
            engine.to_lowercase(),
            if engine == "Docker" { "systempaths=unconfined" } else { "unmask=ALL" }
        )),
        Some(_) => steps.push(
            "in the pod: hostUsers: false, and in the container securityContext: {procMount: Unmasked, seccompProfile: \
             {type: Unconfined}, appArmorProfile: {type: Unconfined}}; or privileged: true"
                .into(),
        ),
        None if steps.is_empty() => {
            let old = reason.contains("Function not implemented") || reason.contains("os error 38");
            let word = if old { "a kernel of version 5.12 or later" } else { "run the judge as root" };
            steps.push(word.into());
        }
        None => {}
    }
    steps.push("or --sandbox wasm, or --sandbox process (SECURITY.md says what it does not promise)".into());
    steps.join("; ")
}

/// How to get control groups.
pub fn control_groups(facts: &Facts, reason: &str) -> String {
    if !facts.unified {
        return match (facts.root, facts.inside) {
            (false, _) => "version 1 gives none to ordinary users: run the judge as root, or boot with \
                           systemd.unified_cgroup_hierarchy=1"
                .into(),
            (true, Some(_)) => {
                "mount /sys/fs/cgroup writable in the container (docker run --privileged)".into()
            }
            (true, None) => "mount -t cgroup2 none /sys/fs/cgroup".into(),
        };
    }
    if facts.root && reason.contains("processes of its own") {
        // cgroup-v2.rst, "no internal process constraint"; what the entry points of nested container engines do.
        return "mkdir /sys/fs/cgroup/rest && xargs -rn1 < /sys/fs/cgroup/cgroup.procs > /dev/null sh -c 'echo $0 > \
                /sys/fs/cgroup/rest/cgroup.procs'"
            .into();
    }
    if facts.root {
        return "mount -o remount,rw /sys/fs/cgroup (in a container: --privileged, or --cgroupns=private with a writable \
                mount)"
            .into();
    }
    if reason.contains("no memory controller") {
        return "systemctl edit user@.service, with [Service] and Delegate=memory pids cpu; then log in again and run \
                systemd-run --user --scope cog-judge …"
            .into();
    }
    "systemd-run --user --scope cog-judge …".into()
}

/// How to get Landlock.
pub fn landlock(facts: &Facts) -> String {
    if facts.modules.is_empty() {
        return "a kernel of version 5.13 or later with CONFIG_SECURITY_LANDLOCK".into();
    }
    format!("boot with lsm=landlock,{} (CONFIG_SECURITY_LANDLOCK, Linux 5.13 or later)", facts.modules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_machine_gets_the_command_that_mends_it() {
        let user = Facts { unprivileged: Some(0), max_user_namespaces: Some(0), ..Facts::default() };
        let advice = namespaces(&user, "");
        assert!(advice.starts_with(
            "sysctl -w user.max_user_namespaces=15000; sysctl -w kernel.unprivileged_userns_clone=1; or "
        ));
        let ubuntu = Facts { apparmor: Some(1), ..Facts::default() };
        assert!(namespaces(&ubuntu, "").contains("apparmor_restrict_unprivileged_userns=0"));
        // None of that binds root.
        let root = Facts { root: true, ..ubuntu };
        assert!(!namespaces(&root, "").contains("sysctl"));
        let docker = Facts { inside: Some("Docker"), root: true, ..Facts::default() };
        assert!(namespaces(&docker, "").starts_with("docker run --security-opt seccomp=unconfined"));
        let pod = Facts { inside: Some("Kubernetes"), ..Facts::default() };
        assert!(namespaces(&pod, "").contains("procMount: Unmasked"));
        let old = "mount_setattr: Function not implemented (os error 38)";
        assert!(namespaces(&Facts::default(), old).starts_with("a kernel of version 5.12"));
    }

    #[test]
    fn control_groups_are_mended_by_version_and_user() {
        let of = |root, unified, inside, reason: &str| {
            control_groups(&Facts { root, unified, inside, ..Facts::default() }, reason)
        };
        assert!(of(false, false, None, "").contains("systemd.unified_cgroup_hierarchy=1"));
        assert!(of(false, true, None, "version 2: /a: Permission denied").starts_with("systemd-run --user"));
        assert!(of(false, true, None, "no memory controller").contains("Delegate=memory pids cpu"));
        assert!(of(true, true, Some("Docker"), "has processes of its own").starts_with("mkdir"));
        assert!(of(true, false, Some("Docker"), "").contains("--privileged"));
        assert!(
            landlock(&Facts { modules: "capability,yama".into(), ..Facts::default() })
                .contains("lsm=landlock,capability")
        );
    }
}
