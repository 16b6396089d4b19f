//! `cargo xtask uml`: the tests against the real DRBD module and device-mapper, in a user-mode Linux: drbd-nl's, and those of our
//! layer and of `block-drbd`.
//!
//! Debian's package `user-mode-linux` is a kernel that runs as an ordinary process, with `drbd.ko` beside it; nothing is installed and nothing is loaded into
//! this machine's kernel. It boots from this machine's own file system, with a first process of ours (`drbd-nl/tests/uml/init.rs`) that runs the tests and
//! says how they ended. All of it takes a few seconds.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bascule_lab::unpacked;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::say::{answer, say};

/// How long the tests may take, boot and power-off included; without any trouble they need less than a tenth.
const RUN_MAX: Duration = Duration::from_secs(900);
const DISKS: u8 = 4;
/// Room for DRBD's metadata and a little data.
const DISK_BYTES: u64 = 32 * 1024 * 1024;
const MEMORY: &str = "512M";
const SCRATCH: &str = "bascule-uml-";

/// The test programs that run inside, each in a boot of its own, as package and test target.
const SUITES: [(&str, &str); 2] = [("drbd-nl", "uml"), ("bascule-xen", "volumes")];

/// Runs the tests and shows what they print; `heard` gets each line, too.
pub(crate) fn run(heard: &mut dyn FnMut(&str)) -> Result<()> {
    let kernel = Kernel::get()?;
    let drbdmeta = drbdmeta()?;
    for (package, suite) in SUITES {
        let programs = Programs::build(package, suite)?;
        let directory = Scratch::make()?;
        let child = boot(&kernel, &drbdmeta, &programs, &directory)?;
        let code = watch(child, heard)?;
        ensure!(code == 0, "{suite} of {package} in user-mode Linux ended with {code}");
    }
    Ok(())
}

/// A kernel and its modules.
struct Kernel {
    program: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    fn get() -> Result<Kernel> {
        let root = package("user-mode-linux")?;
        let modules = only_entry(&root.join("usr/lib/uml/modules"))?.join("kernel");
        ensure!(modules.join("drivers/block/drbd/drbd.ko").exists(), "no drbd.ko under {}", modules.display());
        Ok(Kernel { program: root.join("usr/bin/linux.uml"), modules })
    }
}

/// The program that prepares metadata, this machine's own if it has one.
fn drbdmeta() -> Result<PathBuf> {
    for installed in ["/sbin/drbdmeta", "/usr/sbin/drbdmeta"] {
        if Path::new(installed).exists() {
            return Ok(installed.into());
        }
    }
    let root = package("drbd-utils")?;
    let found =
        ["sbin/drbdmeta", "usr/sbin/drbdmeta"].map(|path| root.join(path)).into_iter().find(|path| path.exists());
    found.with_context(|| format!("no drbdmeta under {}", root.display()))
}

/// Where to look for programs so that drbdadm is found, and drbdadm-84 by it: this machine's own if it has one.
pub(crate) fn path_with_drbdadm() -> Result<String> {
    let own = env::var("PATH").unwrap_or_default();
    let own = format!("{own}:/usr/sbin:/sbin");
    if env::split_paths(&own).any(|directory| directory.join("drbdadm").exists()) {
        return Ok(own);
    }
    let root = package("drbd-utils")?;
    let theirs = ["usr/sbin", "sbin", "lib/drbd", "usr/lib/drbd"].map(|path| root.join(path).display().to_string());
    Ok(format!("{}:{own}", theirs.join(":")))
}

/// A Debian package, unpacked into the cache and not installed.
fn package(name: &str) -> Result<PathBuf> {
    unpacked(name, &cache()?, say)
}

fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME") {
        Some(base) => PathBuf::from(base),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set: no place for the cache")?).join(".cache"),
    };
    let cache = base.join("bascule/uml");
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    Ok(cache)
}

/// What runs inside.
struct Programs {
    init: PathBuf,
    test: PathBuf,
}

impl Programs {
    fn build(package: &str, suite: &str) -> Result<Programs> {
        say(&format!("uml: building {suite} of {package}"));
        let test = executable(package, suite, &["test", "--no-run", "--test"])?;
        let init = executable("drbd-nl", "uml_init", &["build", "--example"])?;
        Ok(Programs { init, test })
    }
}

/// The program that a cargo command builds of one target of a package; it may build the package's others, too.
fn executable(package: &str, target: &str, arguments: &[&str]) -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .args([target, "--package", package, "--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "cargo {} {target} failed", arguments.join(" "));
    let messages = output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let mut executables = messages
        .filter(|message: &serde_json::Value| message["target"]["name"] == target)
        .filter_map(|message| Some(message["executable"].as_str()?.to_owned()));
    let built = executables.next().map(PathBuf::from);
    built.with_context(|| format!("cargo {} {target} built no program", arguments.join(" ")))
}

/// A directory with the disks, removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> Result<Scratch> {
        remove_leftovers()?;
        let scratch = Scratch(env::temp_dir().join(format!("{SCRATCH}{}", std::process::id())));
        fs::create_dir_all(&scratch.0)?;
        for disk in 0..DISKS {
            File::create(scratch.disk(disk))?.set_len(DISK_BYTES)?;
        }
        Ok(scratch)
    }

    fn disk(&self, number: u8) -> PathBuf {
        self.0.join(format!("disk{number}"))
    }
}

/// Of runs that were interrupted: named after a process that is no more.
fn remove_leftovers() -> Result<()> {
    for entry in fs::read_dir(env::temp_dir())?.filter_map(Result::ok) {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(SCRATCH));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
    Ok(())
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Unknown `NAME=value` words of the command line become the environment of the first process.
fn boot(kernel: &Kernel, drbdmeta: &Path, programs: &Programs, directory: &Scratch) -> Result<Child> {
    let mut command = Command::new(&kernel.program);
    command.args([&format!("mem={MEMORY}"), "rootfstype=hostfs", "rootflags=/", "rw", "quiet", "loglevel=1"]);
    command.args(["con=null", "con0=fd:0,fd:1", "ssl=null", "panic=1"]);
    command.arg(word("uml_dir", directory.0.as_os_str()));
    for disk in 0..DISKS {
        command.arg(word(&format!("ubd{disk}"), directory.disk(disk).as_os_str()));
    }
    command.arg(word("init", programs.init.as_os_str()));
    // No colours: the results are counted.
    command.arg(word("TERM", OsStr::new("dumb")));
    command.arg(word("UML_TEST", programs.test.as_os_str()));
    command.arg(word("UML_MODULES", kernel.modules.as_os_str()));
    command.arg(word("UML_DRBDMETA", drbdmeta.as_os_str()));
    // When this process is gone its end of stdin closes, and the first process in there powers off.
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    say("uml: booting");
    command.spawn().with_context(|| format!("cannot start {}", kernel.program.display()))
}

fn word(name: &str, value: &OsStr) -> std::ffi::OsString {
    let mut word = std::ffi::OsString::from(format!("{name}="));
    word.push(value);
    word
}

/// Shows the console and waits for the first process's last line; `Err` when it never comes.
fn watch(mut child: Child, heard: &mut dyn FnMut(&str)) -> Result<i32> {
    let console = child.stdout.take().context("no console")?;
    let lines = lines_of(console);
    let deadline = Instant::now() + RUN_MAX;
    let mut code = None;
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        match line.strip_prefix("uml: exit ") {
            Some(found) => code = found.trim().parse().ok(),
            None => {
                answer(&line);
                heard(&line);
            }
        }
    }
    end(&mut child, code.is_some())?;
    code.with_context(|| format!("user-mode Linux ended, or {} s passed, before the tests did", RUN_MAX.as_secs()))
}

/// The console's lines; the channel closes when the kernel is gone.
fn lines_of(console: impl io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Leaves no kernel behind. After its last line it powers off by itself; else its whole group is ended, for it has helper processes that would
/// outlive it.
fn end(child: &mut Child, is_done: bool) -> Result<()> {
    const POWER_OFF_MAX: Duration = Duration::from_secs(5);
    let deadline = Instant::now() + POWER_OFF_MAX;
    while is_done && Instant::now() < deadline {
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    let group = Pid::from_raw(child.id().try_into()?);
    // It made itself the leader of a group; the second is for the moment before that.
    killpg(group, Signal::SIGKILL).or_else(|_| child.kill())?;
    child.wait()?;
    Ok(())
}

fn only_entry(directory: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let entry = entries.next().with_context(|| format!("{} is empty", directory.display()))??;
    Ok(entry.path())
}
