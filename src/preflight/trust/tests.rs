use serde_json::json;

use super::*;

const DOMAIN: &str = r#"{
    "c_info": {"type": "pv", "name": "vm0", "domid": 4294967295, "uuid": "abf33f4f-43fa-4e34-a5b3-37167c414db8",
        "run_hotplug_scripts": "True"},
    "b_info": {"max_vcpus": 1, "avail_vcpus": [0], "max_memkb": 131072, "target_memkb": 131072, "video_memkb": 0,
        "sched_params": {"sched": "credit2", "weight": 256, "cap": 0}, "claim_mode": "True", "kernel": "/boot/vmlinuz",
        "cmdline": "console=hvc0 root=/dev/xvda; rm -rf /", "ramdisk": "/boot/initrd.img", "type.pv": {}, "arch_arm": {},
        "arch_x86": {"msr_relaxed": "False"}},
    "disks": [{"pdev_path": "r0/0", "vdev": "xvda", "backend": "phy", "format": "raw", "script": "block-drbd", "readwrite": 1,
        "colo_restore_enable": "False"}],
    "nics": [{"devid": 0, "mac": "00:16:3e:ba:00:00", "bridge": "xenbr0", "nictype": "vif", "script": "vif-bridge"}],
    "on_reboot": "restart", "on_soft_reset": "soft_reset"
}"#;

const FULLY_VIRTUAL: &str = r#"{
    "c_info": {"type": "hvm", "hap": "False", "name": "guest3", "uuid": "11111111-2222-3333-4444-555555555557"},
    "b_info": {"max_vcpus": 2, "device_model_version": "qemu_xen", "cpuid": [{"leaf": 1, "ecx": "xxxxxxxx"}],
        "vcpu_hard_affinity": [[0, 1], [0, 1]], "type.hvm": {"bios": "seabios", "vga": {"kind": "cirrus"}, "vnc": {"enable": "True",
        "listen": "127.0.0.1", "passwd": "any/thing, really"}, "sdl": {"enable": "False"}, "spice": {}, "serial": "pty", "boot": "cd",
        "usbdevice": "tablet", "rdm": {"strategy": "ignore"}, "ms_vm_genid": [1, 2]}},
    "disks": [{"pdev_path": "r0/0", "vdev": "hda", "format": "raw", "script": "block-drbd", "readwrite": 1},
        {"vdev": "hdc", "format": "empty", "removable": 1, "is_cdrom": 1}],
    "vfbs": [{"devid": 0, "vnc": {"enable": "True"}}], "vkbs": [{"devid": 0, "backend_type": "qemu"}]
}"#;

fn volumes() -> [VolumeId; 1] {
    [VolumeId { resource: "r0".into(), volume: 0 }]
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn judged(guests: &Guests, config: &Value) -> Vec<String> {
    objections(guests, config, Agreed { volumes: &volumes(), disks: &[] })
}

fn refused(config: &Value) -> Vec<String> {
    judged(&Guests::default(), config)
}

/// The domain with one value put in, wherever that is.
fn with(domain: &str, path: &str, value: Value) -> Value {
    let mut config = parsed(domain);
    let mut slot = &mut config;
    for part in path.split('/') {
        slot = match part.parse::<usize>() {
            Ok(index) => {
                if !slot.is_array() {
                    *slot = json!([]);
                }
                let list = slot.as_array_mut().expect("a list");
                while list.len() <= index {
                    list.push(Value::Null);
                }
                &mut list[index]
            }
            Err(_) => &mut slot[part],
        };
    }
    *slot = value;
    config
}

#[test]
fn ordinary_domains_are_accepted() {
    assert_eq!(refused(&parsed(DOMAIN)), Vec::<String>::new());
    assert_eq!(refused(&parsed(FULLY_VIRTUAL)), Vec::<String>::new());
}

#[test]
fn lists_may_be_empty_where_a_list_belongs() {
    for (path, list) in [("nics", json!([])), ("b_info/cpuid", json!([])), ("b_info/vcpu_hard_affinity", json!([[]]))] {
        assert_eq!(refused(&with(DOMAIN, path, list)), Vec::<String>::new(), "{path}");
    }
}

#[test]
fn viewers_may_be_listened_for_at_any_address() {
    for listen in ["0.0.0.0", "127.0.0.1:7", "::1", "localhost"] {
        let config = with(FULLY_VIRTUAL, "b_info/type.hvm/vnc/listen", json!(listen));
        assert_eq!(refused(&config), Vec::<String>::new(), "{listen}");
    }
}

#[test]
fn what_would_run_open_or_use_something_of_this_host_is_refused() {
    let hostile = [
        ("b_info/kernel", json!("/etc/shadow")),
        ("b_info/kernel", json!("/boot/../etc/shadow")),
        ("b_info/kernel", json!("boot/vmlinuz")),
        ("b_info/kernel", json!("/boot/")),
        ("b_info/ramdisk", json!("/root/.ssh/id_ed25519")),
        ("b_info/type.pv/kernel", json!("/boot/vmlinuz")),
        ("b_info/bootloader", json!("/tmp/evil")),
        ("b_info/bootloader_args/0", json!("--output-directory=/etc")),
        ("b_info/device_model", json!("/tmp/evil")),
        ("b_info/device_model_version", json!("qemu_xen_traditional")),
        ("b_info/device_model_stubdomain", json!("True")),
        ("b_info/device_model_user", json!("root")),
        ("b_info/stubdomain_kernel", json!("/tmp/evil")),
        ("b_info/extra/0", json!("-chardev")),
        ("b_info/extra_pv/0", json!("-chardev")),
        ("b_info/extra_hvm/0", json!("-chardev")),
        ("b_info/device_tree", json!("/tmp/tree")),
        ("b_info/ioports/0", json!({"first": 0, "number": 1})),
        ("b_info/irqs/0", json!(9)),
        ("b_info/iomem/0", json!({"start": 0, "number": 1})),
        ("b_info/type.hvm/firmware", json!("/tmp/evil")),
        ("b_info/type.hvm/system_firmware", json!("/tmp/evil")),
        ("b_info/type.hvm/smbios_firmware", json!("/etc/shadow")),
        ("b_info/type.hvm/acpi_firmware", json!("/etc/shadow")),
        ("b_info/type.hvm/serial", json!("file:/etc/passwd")),
        ("b_info/type.hvm/serial_list/0", json!("tcp::22,server")),
        ("b_info/type.hvm/usbdevice", json!("host:1234:5678")),
        ("b_info/type.hvm/usbdevice_list/0", json!("disk:/dev/sda")),
        ("b_info/type.hvm/vnc/listen", json!("unix:/run/x,sasl")),
        ("b_info/type.hvm/vnc/listen", json!("unix:console")),
        ("b_info/type.hvm/vnc/listen", json!("host:unix:0")),
        ("vfbs/0/vnc/listen", json!("unix:0")),
        ("b_info/type.hvm/vnc/listen\0", json!("unix:console")),
        ("b_info/bootloader_args/a", json!("--args=quiet")),
        ("b_info/type.hvm/spice/unknown", json!("word")),
        ("b_info/type.hvm/spice/passwd", json!("x,x509-key-file=/etc/shadow")),
        ("b_info/cpuid/0/unknown", json!("x")),
        ("b_info/type.hvm/keymap", json!("../../etc/shadow")),
        ("b_info/type.hvm/sdl/enable", json!("True")),
        ("b_info/type.hvm/sdl/xauthority", json!("/root/.Xauthority")),
        ("b_info/type.hvm/gfx_passthru", json!("True")),
        ("b_info/type.hvm/soundhw", json!("hda -chardev x")),
        ("b_info/type.pvh/pvshim", json!("True")),
        ("b_info/type.pvh/pvshim_path", json!("/tmp/evil")),
        ("c_info/driver_domain", json!("True")),
        ("c_info/run_hotplug_scripts", json!("False")),
        ("c_info/passthrough", json!("enabled")),
        ("c_info/xsdata", json!({"a": "b"})),
        ("c_info/platformdata", json!({"a": "b"})),
        ("c_info/ssidref", json!(1)),
        ("c_info/poolid", json!(1)),
        ("c_info/name", json!("../vm0")),
        ("disks/0/pdev_path", json!("/dev/sda")),
        ("disks/0/pdev_path", json!("r1/0")),
        ("disks/0/pdev_path", json!("r0")),
        ("disks/0/script", json!("/tmp/evil")),
        ("disks/0/script", json!("block-nbd")),
        ("disks/0/backend", json!("qdisk")),
        ("disks/0/backend_domid", json!(3)),
        ("disks/0/backend_domname", json!("driver")),
        ("disks/0/format", json!("qcow2")),
        ("disks/0/format", json!("empty")),
        ("disks/0/colo_enable", json!("True")),
        ("disks/0/active_disk", json!("/dev/sda")),
        ("disks/1", json!({"vdev": "xvdb", "format": "raw", "pdev_path": "r0/0"})),
        ("disks/1", json!({"vdev": "xvdb", "format": "raw", "script": "block-drbd"})),
        ("nics/0/script", json!("/tmp/evil")),
        ("nics/0/script", json!("vif-evil")),
        ("nics/0/backend_domid", json!(3)),
        ("nics/0/backend_domname", json!("driver")),
        ("nics/0/ifname", json!("-x")),
        ("nics/0/colo_sock_mirror_ip", json!("10.0.0.1")),
        ("nics/0/coloft_forwarddev", json!("eth0")),
        ("vfbs/0/sdl/enable", json!("True")),
        ("vkbs/0/backend_domid", json!(3)),
        ("vkbs/0/backend_domname", json!("driver")),
        ("vfbs/0/backend_domname", json!("driver")),
        ("pcidevs/0", json!({"dev": 1})),
        ("usbctrls/0", json!({"ports": 8})),
        ("usbdevs/0", json!({"type.hostdev": {"hostbus": 1}})),
        ("dtdevs/0", json!({"path": "/x"})),
        ("rdms/0", json!({"start": 0})),
        ("vtpms/0", json!({"backend_domid": 0})),
        ("p9s/0", json!({"path": "/", "tag": "root"})),
        ("channels/0", json!({"connection.socket": {"path": "/run/x"}})),
        ("vdispls/0", json!({"backend_domid": 0})),
        ("vsnds/0", json!({"backend_domid": 0})),
        ("pvcallsifs/0", json!({"backend_domid": 0})),
        ("something_new", json!(1)),
        ("something_new", json!({})),
        ("b_info/something_new", json!({})),
        ("pcidevs/0", json!({})),
        ("pcidevs/0", json!(null)),
        ("pcidevs/0", json!({"unknown": []})),
        ("usbctrls", json!([])),
        ("disks/1", json!({"unknown": []})),
        ("nics/0/script", json!([])),
        ("usbctrls/0", json!({})),
        ("usbdevs/0", json!({})),
        ("vtpms/0", json!({})),
        ("p9s/0", json!({})),
        ("channels/0", json!({})),
        ("rdms/0", json!({})),
        ("disks/1", json!({})),
        ("nics", json!("eth0")),
        ("b_info/kernel", json!({})),
    ];
    for (path, value) in hostile {
        let found = refused(&with(DOMAIN, path, value.clone()));
        assert!(!found.is_empty(), "{path} = {value} was accepted");
    }
}

#[test]
fn an_objection_says_where_and_what() {
    let config = with(DOMAIN, "disks/0/script", json!("/tmp/evil"));
    assert_eq!(refused(&config), [r#"disks[0].script is "/tmp/evil""#]);
    let config = with(DOMAIN, "b_info/type.hvm/serial", json!("file:/x"));
    assert_eq!(refused(&config), [r#"b_info.type.hvm.serial is "file:/x""#]);
}

#[test]
fn the_administrator_says_where_kernels_are_and_which_programs_nics_may_name() {
    let guests =
        Guests { kernels: vec!["/srv/kernels".into()], nic_scripts: vec!["vif-route".into()], ..Guests::default() };
    let config = with(DOMAIN, "b_info/kernel", json!("/srv/kernels/a"));
    let found = judged(&guests, &config);
    assert_eq!(found, [r#"b_info.ramdisk is "/boot/initrd.img""#, r#"nics[0].script is "vif-bridge""#]);
    let link = tempfile::tempdir().expect("a directory");
    std::os::unix::fs::symlink("/etc/passwd", link.path().join("kernel")).expect("a link");
    let guests = Guests { kernels: vec![link.path().into()], ..Guests::default() };
    let config = with(DOMAIN, "b_info/kernel", json!(link.path().join("kernel")));
    assert!(judged(&guests, &config).iter().any(|found| found.starts_with("b_info.kernel")));
}

/// A domain with a second disk, judged with what was offered for it.
fn with_disk(disk: Value, usage: DiskUse) -> Vec<String> {
    let backing = crate::backing::Backing { kind: crate::backing::Kind::File, size_bytes: 2048 };
    let disks = [OfferedDisk { vdev: "xvdc".into(), path: "/srv/cd.iso".into(), usage, backing }];
    objections(&Guests::default(), &with(DOMAIN, "disks/1", disk), Agreed { volumes: &volumes(), disks: &disks })
}

#[test]
fn a_disk_on_no_volume_is_as_it_was_offered_or_refused() {
    let disk = |more: Value| {
        let mut disk = json!({"pdev_path": "/srv/cd.iso", "vdev": "xvdc", "format": "raw", "backend": "qdisk"});
        disk.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        disk
    };
    let (reads, shares) = (DiskUse::ReadOnly, DiskUse::Shared);
    for (more, usage) in [
        (json!({}), reads),
        (json!({"readwrite": 0, "is_cdrom": 1, "removable": 1, "backend": "phy"}), reads),
        (json!({"readwrite": 1, "backend": "phy"}), shares),
    ] {
        assert_eq!(with_disk(disk(more.clone()), usage), Vec::<String>::new(), "{more} {usage:?}");
    }
    for (more, usage) in [
        (json!({"readwrite": 1}), reads),
        (json!({"readwrite": -1}), reads),
        (json!({"readwrite": "1"}), reads),
        (json!({"readwrite": 0.5}), reads),
        (json!({"readwrite": 1}), shares),
        (json!({"pdev_path": "/srv/other.iso"}), reads),
        (json!({"vdev": "xvdd"}), reads),
        (json!({"format": "qcow2"}), reads),
        (json!({"format": "empty"}), reads),
        (json!({"script": "block-drbd"}), reads),
        (json!({"script": "block-drbd", "pdev_path": "r0/0"}), reads),
        (json!({"pdev_path": "r0/0", "backend": "phy"}), reads),
        (json!({"backend_domid": 3}), reads),
    ] {
        assert!(!with_disk(disk(more.clone()), usage).is_empty(), "{more} {usage:?}");
    }
}

proptest::proptest! {
    /// Whatever stands there, it is judged, and what libxl does not know by heart is refused.
    #[test]
    fn unknown_places_are_refused(key in "[a-z_]{1,12}", text in ".{0,40}") {
        let known = RULES.iter().any(|(pattern, _)| pattern.split('/').next() == Some(key.as_str()));
        proptest::prop_assume!(!known);
        let config = with(DOMAIN, &key, json!(text));
        proptest::prop_assert!(!refused(&config).is_empty());
    }
}
