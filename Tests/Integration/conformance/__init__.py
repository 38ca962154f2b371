"""What etcd answers, case by case: each is played to etcd and through the proxy, and must read the same."""
