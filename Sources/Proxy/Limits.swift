/// Every cap of the proxy, and how caps relate.
public enum Limits {}
