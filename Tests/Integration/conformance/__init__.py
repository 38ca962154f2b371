"""What etcd answers, case by case: each is played to etcd itself and through the proxy, and must read the same."""
